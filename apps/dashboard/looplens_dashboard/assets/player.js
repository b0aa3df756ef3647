// Moving the scrubber: playing, looping, and the slider. Nothing here asks the server.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const byId = (id) => document.getElementById(id);
  let timer = null;
  let period = 125; // ms an iteration while playing
  let looping = false;

  function set(id, props) {
    if (byId(id) || id === "iteration") window.dash_clientside.set_props(id, props);
  }

  function last() {
    const shown = byId("iteration-last");
    return shown ? Number(shown.textContent) : 0;
  }

  // The iterations that the run keeps, ascending; null where it keeps all of them.
  function kept() {
    const shown = byId("iteration-last");
    return shown && shown.dataset.kept ? shown.dataset.kept.split(",").map(Number) : null;
  }

  function nearestKept(iteration) {
    const there = kept();
    if (!there) return Math.min(last(), Math.max(0, iteration));
    const apart = (number) => Math.abs(number - iteration);
    return there.reduce((best, number) => (apart(number) < apart(best) ? number : best));
  }

  // So many iterations further on, of those that are kept.
  lens.further = function (steps) {
    const there = kept();
    if (!there) return lens.iteration + steps;
    const at = there.indexOf(lens.iteration) + steps;
    return there[Math.min(there.length - 1, Math.max(0, at))];
  };
  lens.lastIteration = last;

  // Where the scrubber stands. What Dash holds follows it, perhaps late on a busy machine, and is
  // read once, when a run is opened: a step must not start from where an older one ended.
  lens.iteration = null;
  lens.standsAt = function (opened) {
    if (lens.iteration === null) lens.iteration = opened ?? null;
    return lens.iteration;
  };
  lens.forgetIteration = function () {
    pause();
    lens.iteration = null;
  };

  lens.goTo = function (iteration) {
    slid = false;
    move(iteration);
    set("scrubber", { value: lens.iteration });
  };

  function move(iteration) {
    if (lens.iteration === null || !byId("iteration-last")) return;
    const target = nearestKept(iteration);
    if (target === lens.iteration) return;
    lens.iteration = target;
    set("iteration", { data: target });
  }

  // From a press on the slider until something else moves the iteration, the slider leads it.
  let slid = false;
  document.addEventListener(
    "pointerdown",
    (event) => (slid = Boolean(event.target.closest && event.target.closest("#scrubber"))),
    true,
  );
  new MutationObserver(function (changes) {
    if (slid) move(Number(changes[changes.length - 1].target.getAttribute("aria-valuenow")));
  }).observe(document, { attributes: true, subtree: true, attributeFilter: ["aria-valuenow"] });

  function pause() {
    clearTimeout(timer);
    timer = null;
    set("play", { children: "▶", "aria-label": "Play" });
  }

  function tick() {
    if (lens.iteration >= last()) {
      if (!looping) return pause();
      lens.goTo(0);
    } else {
      lens.goTo(lens.further(1));
    }
    timer = setTimeout(tick, period);
  }

  lens.play = function () {
    if (timer !== null) return pause();
    if (lens.iteration === null) return;
    if (lens.iteration >= last()) lens.goTo(0);
    set("play", { children: "❚❚", "aria-label": "Pause" });
    timer = setTimeout(tick, period);
  };

  lens.loop = function () {
    looping = !looping;
    byId("loop").setAttribute("aria-pressed", String(looping));
  };

  clientside.speed = function (perSecond) {
    if (perSecond) period = 1000 / Number(perSecond);
  };
})();
