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

  // What was chosen outside of a control; the server decides whether the run has it.
  lens.pick = function (values) {
    set("picked", { data: { ...values } });
  };

  lens.say = function (text) {
    document.getElementById("said").textContent = text;
    clearTimeout(lens.say.timer);
    lens.say.timer = setTimeout(() => (document.getElementById("said").textContent = ""), 3000);
  };
})();
