// The selection in the browser: into the address, to the panels that need it, to the page's theme.
// What a value of the address means, and whether the run has it, is decided by the server alone.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
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

  lens.isWriting = () => timer !== null;

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
    if (lens.selection !== selection) forget(selection);
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

  // What was chosen; the server decides whether the run has it. A quick second choice takes the place
  // of the first one's answer, so all that is not answered yet is sent again with it.
  const FORGOTTEN = 3000; // ms, after which the server has refused a value, or never heard of it
  const unanswered = {}; // by name: the value and when it was chosen

  function forget(answered) {
    Object.keys(unanswered).forEach(function (name) {
      const { value, since } = unanswered[name];
      if (answered[name] === value || performance.now() - since > FORGOTTEN) delete unanswered[name];
    });
  }

  lens.pick = function (values) {
    forget({});
    if ("run" in values) Object.keys(unanswered).forEach((name) => delete unanswered[name]);
    if ("prompt" in values) delete unanswered.token;
    if ("token" in values) delete unanswered.prompt;
    Object.keys(values).forEach(
      (name) => (unanswered[name] = { value: String(values[name]), since: performance.now() }),
    );
    const all = Object.entries(unanswered).map(([name, { value }]) => [name, value]);
    set("picked", { data: Object.fromEntries(all) });
  };

  // A part of the selection, with what was chosen and is not answered yet.
  lens.wanted = function (name) {
    return unanswered[name] ? unanswered[name].value : lens.selection[name];
  };

  lens.say = function (text) {
    document.getElementById("said").textContent = text;
    clearTimeout(lens.say.timer);
    lens.say.timer = setTimeout(() => (document.getElementById("said").textContent = ""), 3000);
  };
})();
