// The selection in the browser: into the address, to the panels that need it, to the page's theme.
// What a value of the address means, and whether the run has it, is decided by selection.py alone.
(function () {
  "use strict";
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const WRITE_AFTER = 250; // ms; browsers refuse more than about six changes of the address a second
  let timer = null;

  clientside.readAddress = function () {
    return window.location.search;
  };

  let pending = null;
  clientside.writeAddress = function (selection, opened) {
    const iteration = window.looplens.standsAt(opened);
    if (!selection || iteration === null) return;
    pending = "?" + new URLSearchParams({ ...selection, iteration: String(iteration) });
    if (timer === null) {
      timer = setTimeout(function () {
        timer = null;
        window.history.replaceState(window.history.state, "", pending + window.location.hash);
      }, WRITE_AFTER);
    }
  };

  clientside.theme = function (selection) {
    // Until the address has been read, what it says is enough to open in the right colours.
    const asked = new URLSearchParams(window.location.search).get("theme");
    const theme = selection ? selection.theme : asked === "dark" ? "dark" : "light";
    document.documentElement.style.colorScheme = theme;
    return theme;
  };

  // Each panel has a store with its part of the selection, which changes only when that part does.
  clientside.route = function (selection, keysOfPanels, ...before) {
    const same = window.dash_clientside.no_update;
    if (!selection) return before.map(() => same);
    return Object.values(keysOfPanels).map(function (keys, index) {
      const part = Object.fromEntries(keys.map((key) => [key, selection[key]]));
      return JSON.stringify(part) === JSON.stringify(before[index]) ? same : part;
    });
  };

  clientside.stepPrompt = function (previous, next, selection) {
    if (!selection) return;
    const clicked = window.dash_clientside.callback_context.triggered_id;
    const step = clicked === "next-prompt" ? 1 : -1;
    window.looplens.pick({ prompt: String(Number(selection.prompt) + step) });
  };
})();
