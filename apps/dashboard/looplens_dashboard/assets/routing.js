// What changed of the selection, told to the page, the bar and the panels that are drawn from it.
(function () {
  "use strict";
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const same = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);

  clientside.places = function (selection, place, bar) {
    if (!selection) return [same(), same()];
    const link = document.getElementById("to-" + selection.page);
    const next = [
      { page: selection.page, run: selection.run, problem: selection.problem || "" },
      { shown: Boolean(link) && link.dataset.ofRun === "yes", run: selection.run, problem: selection.problem || "" },
    ];
    return [place, bar].map((before, index) =>
      JSON.stringify(before) === JSON.stringify(next[index]) ? same() : next[index],
    );
  };

  // Each panel has a store with its part of the selection, which changes only when that part does.
  clientside.route = function (selection, keysOfPanels, ids, before) {
    if (!selection || selection.problem) return before.map(same);
    return ids.map(function (id, index) {
      const keys = keysOfPanels[id.panel] || [];
      const part = Object.fromEntries(keys.map((key) => [key, selection[key]]));
      if (JSON.stringify(part) === JSON.stringify(before[index])) return same();
      if (!before[index] && !inSight(id.panel)) {
        waiting[id.panel] = { id: id, part: part };
        drawWaiting(Date.now() + LONGEST_WAIT);
        return same();
      }
      delete waiting[id.panel];
      return part;
    });
  };

  // On a new page the panels in sight come first; the others wait until those are drawn.
  const LONGEST_WAIT = 3000; // ms
  const waiting = {};
  let looking = null;

  function inSight(name) {
    const panel = document.getElementById(name + "-panel");
    return !panel || panel.getBoundingClientRect().top < window.innerHeight;
  }

  function isDrawing(panel) {
    const place = panel.querySelector(".waiting, .body > .message");
    return place && inSight(panel.dataset.panel) && place.textContent.includes("Drawing…");
  }

  function drawWaiting(until) {
    clearTimeout(looking);
    looking = setTimeout(function () {
      const names = Object.keys(waiting);
      const busy = [...document.querySelectorAll("[data-panel]")].some(isDrawing);
      const now = names.filter((name) => (!busy || Date.now() > until ? true : inSight(name)));
      now.forEach(function (name) {
        const { id, part } = waiting[name];
        delete waiting[name];
        if (document.getElementById(name + "-panel")) set(id, { data: part });
      });
      if (now.length < names.length) drawWaiting(until);
    }, 80);
  }
})();
