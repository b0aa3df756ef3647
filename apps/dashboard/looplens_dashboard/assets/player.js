// Moving the scrubber: playing, the keyboard, and clicks on tokens and on cells of the heat map.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  let timer = null;
  let period = 125; // ms an iteration while playing

  function last() {
    return Number(document.getElementById("iteration-last").textContent);
  }

  // The iterations that the run keeps, ascending; null where it keeps all of them.
  function kept() {
    const listed = document.getElementById("iteration-last").dataset.kept;
    return listed ? listed.split(",").map(Number) : null;
  }

  function nearestKept(iteration) {
    const there = kept();
    if (!there) return Math.min(last(), Math.max(0, iteration));
    const apart = (number) => Math.abs(number - iteration);
    return there.reduce((best, number) => (apart(number) < apart(best) ? number : best));
  }

  // So many iterations further on, of those that are kept.
  function further(steps) {
    const there = kept();
    if (!there) return lens.iteration + steps;
    const at = there.indexOf(lens.iteration) + steps;
    return there[Math.min(there.length - 1, Math.max(0, at))];
  }

  // Where the scrubber stands. What Dash holds follows it, perhaps late on a busy machine, and is
  // read once, when the page opens: a step must not start from where an older one ended.
  lens.iteration = null;
  lens.standsAt = function (opened) {
    if (lens.iteration === null) lens.iteration = opened ?? null;
    return lens.iteration;
  };

  lens.goTo = function (iteration) {
    slid = false;
    move(iteration);
    set("scrubber", { value: lens.iteration });
  };

  function move(iteration) {
    if (lens.iteration === null) return;
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

  // What was clicked outside of a control; selection.py decides whether the run has it.
  lens.pick = function (values) {
    set("picked", { data: { ...values } });
  };

  function pause() {
    clearTimeout(timer);
    timer = null;
    set("play", { children: "▶", "aria-label": "Play" });
  }

  function tick() {
    if (lens.iteration >= last()) return pause();
    lens.goTo(further(1));
    timer = setTimeout(tick, period);
  }

  clientside.play = function () {
    if (timer !== null) return pause();
    if (lens.iteration === null) return;
    if (lens.iteration >= last()) lens.goTo(0);
    set("play", { children: "❚❚", "aria-label": "Pause" });
    timer = setTimeout(tick, period);
  };

  clientside.speed = function (perSecond) {
    period = 1000 / Number(perSecond);
  };

  clientside.pickCell = function (click) {
    const graph = lens.graph("heatmap");
    if (!click || !graph) return;
    const point = click.points[0];
    lens.goTo(Math.round(point.x));
    lens.pick({ token: String(graph.layout.meta.first_token + Math.round(point.y)) });
    set("heatmap-graph", { clickData: null }); // so that the same cell can be clicked again
  };

  document.addEventListener("click", function (event) {
    const token = event.target.closest && event.target.closest("[data-token]");
    if (!token) return;
    lens.pick({ token: token.dataset.token });
  });

  // What was focused with the mouse gives its keys to the scrubber: a click on a button or a switch
  // is not a wish to go on there with the keyboard.
  const CLICKED = "button, input[type=radio]";
  let pressedAt = -Infinity;
  let clicked = null;
  document.addEventListener("pointerdown", () => (pressedAt = performance.now()), true);
  document.addEventListener("focusin", function (event) {
    clicked = performance.now() - pressedAt < 1000 ? event.target : null;
  });

  // Choosing from a list leaves the focus on its field.
  document.addEventListener("pointerup", function (event) {
    const chose = event.target.closest && event.target.closest("[role=option]");
    if (chose) setTimeout(() => document.activeElement.blur(), 0);
  });

  function stepToken(step) {
    const tokens = Array.from(document.querySelectorAll("[data-token]"));
    const at = tokens.findIndex((token) => token.getAttribute("aria-pressed") === "true");
    const next = tokens[at + step];
    if (at >= 0 && next) lens.pick({ token: next.dataset.token });
  }

  // Elements with a use of their own for the keys keep them.
  const KEEPS = "input, textarea, select, [role=radio], [role=option], [contenteditable]";
  const MOVES = {
    ArrowLeft: (step) => lens.goTo(further(-step)),
    ArrowRight: (step) => lens.goTo(further(step)),
    Home: () => lens.goTo(0),
    End: () => lens.goTo(last()),
    "[": () => stepToken(-1),
    "]": () => stepToken(1),
  };

  const ON_SLIDER = { ArrowDown: MOVES.ArrowLeft, ArrowUp: MOVES.ArrowRight };

  function keeps(event) {
    return (event.key === " " && event.target.closest("button, a")) || event.target.closest(KEEPS);
  }

  function keydown(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const onSlider = event.target.closest("[role=slider]") && ON_SLIDER[event.key];
    const act = event.key === " " ? clientside.play : onSlider || MOVES[event.key];
    if (!act) return;
    if (event.target === clicked && clicked.matches(CLICKED)) {
      clicked.blur();
    } else if (keeps(event)) {
      return;
    }
    act(event.shiftKey ? 10 : 1);
    event.preventDefault();
    event.stopPropagation();
  }
  document.addEventListener("keydown", keydown, true); // before the slider's own use of the keys
})();
