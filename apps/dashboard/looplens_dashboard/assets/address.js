// The selection in the browser: into the address, to the panels that need it, to the page's theme.
// What a value of the address means, and whether the run has it, is decided by the server alone.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const same = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const WRITE_AFTER = 250; // ms; browsers refuse more than about six changes of the address a second
  let timer = null;
  let written = null; // page and run of the address that was written last

  lens.selection = null;
  lens.defaults = {}; // what the address leaves out

  // Where a figure was zoomed to belongs to the browser; it is the part `zoom` of the address.
  function opened() {
    const query = new URLSearchParams(window.location.search);
    if (lens.zoom) lens.zoom.read(query.get("zoom"));
    query.delete("zoom");
    return window.location.pathname + "?" + query;
  }

  clientside.readAddress = function () {
    return opened();
  };

  window.addEventListener("popstate", function () {
    lens.forgetIteration();
    written = null;
    set("address", { data: opened() });
  });

  lens.address = function () {
    const selection = lens.selection;
    if (!selection || selection.problem || lens.iteration === null) return null;
    const parts = { ...selection, iteration: String(lens.iteration) };
    delete parts.page;
    const query = new URLSearchParams();
    Object.keys(parts).forEach((name) => {
      if (parts[name] !== "" && parts[name] !== lens.defaults[name]) query.set(name, parts[name]);
    });
    const zoom = lens.zoom ? lens.zoom.text() : "";
    if (zoom) query.set("zoom", zoom);
    return "/" + selection.page + "?" + query;
  };

  lens.writeAddress = function () {
    if (timer !== null) return;
    timer = setTimeout(function () {
      timer = null;
      const address = lens.address();
      if (!address) return;
      const place = lens.selection.page + " " + lens.selection.run;
      const replace = written === null || written === place;
      written = place;
      window.history[replace ? "replaceState" : "pushState"](null, "", address);
    }, WRITE_AFTER);
  };

  clientside.writeAddress = function (selection, iteration, defaults) {
    if (!selection) return;
    lens.defaults = defaults || {};
    lens.take(selection, iteration);
    lens.writeAddress();
  };

  // What the browser holds of the selection; another run, or going back, gives the scrubber its place.
  lens.take = function (selection, iteration) {
    if (lens.selection && lens.selection.run !== selection.run) lens.forgetIteration();
    lens.selection = selection;
    lens.standsAt(iteration);
    document.querySelectorAll("[data-page]").forEach(function (link) {
      const here = link.dataset.page === selection.page;
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      if (here) document.title = link.textContent + " · " + (selection.run || "looplens");
      if (here) document.getElementById("bar").hidden = link.dataset.ofRun !== "yes";
    });
  };

  clientside.theme = function (selection) {
    // Until the address has been read, what it says is enough to open in the right colours.
    const asked = new URLSearchParams(window.location.search).get("theme");
    const theme = selection ? selection.theme : asked === "dark" ? "dark" : "light";
    document.documentElement.style.colorScheme = theme;
    return theme;
  };

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

  // What was chosen outside of a control; the server decides whether the run has it.
  lens.pick = function (values) {
    set("picked", { data: { ...values } });
  };

  // A list that is set twice in a row may report its older value once more. So a control is believed
  // only after somebody touched one; any other that differs is put right.
  const CONTROLS = ["input", "textarea", "label", "[role=option]", "[role=listbox]"].concat(
    ["SegmentedControl", "Input", "Select", "Combobox", "Pill"].map((name) => `[class*=mantine-${name}]`),
  );
  const BELIEVED = 1500; // ms; a text is reported a little after the last key
  let touched = -Infinity;
  ["pointerup", "keydown", "input"].forEach((kind) =>
    document.addEventListener(
      kind,
      function (event) {
        const inside = event.target.closest && event.target.closest(CONTROLS.join(","));
        touched = inside ? performance.now() : -Infinity;
      },
      true,
    ),
  );

  clientside.choose = function (values, ids) {
    const selection = lens.selection;
    if (!selection) return;
    const triggered = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id);
    const believed = performance.now() - touched < BELIEVED;
    const text = (value) => (Array.isArray(value) ? value.join(",") : String(value ?? ""));
    const chosen = {};
    ids.forEach(function (id, index) {
      const name = id.control;
      if (selection[name] === undefined || text(values[index]) === selection[name]) return;
      if (believed && triggered.includes(JSON.stringify(id) + ".value")) {
        chosen[name] = text(values[index]);
      } else {
        const value = Array.isArray(values[index]) ? selection[name].split(",") : selection[name];
        set(id, { value: Array.isArray(value) ? value.filter(Boolean) : value });
      }
    });
    if (Object.keys(chosen).length) lens.pick(chosen);
  };

  lens.say = function (text) {
    document.getElementById("said").textContent = text;
    clearTimeout(lens.say.timer);
    lens.say.timer = setTimeout(() => (document.getElementById("said").textContent = ""), 3000);
  };
})();
