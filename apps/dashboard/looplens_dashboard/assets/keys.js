// The keyboard, and clicks on what is no control: pages, tokens, points of figures, buttons of the bar.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const byId = (id) => document.getElementById(id);

  // How many prompts or tokens the run has; none while no run is shown.
  function count(what) {
    const shown = byId("iteration-last");
    return shown ? Number(shown.dataset[what]) : 0;
  }

  function stepPrompt(step) {
    const next = Number(lens.wanted("prompt")) + step;
    if (next >= 0 && next < count("prompts")) lens.pick({ prompt: String(next) });
  }

  function stepToken(step) {
    const next = Number(lens.wanted("token")) + step;
    if (next >= 0 && next < count("tokens")) lens.pick({ token: String(next) });
  }

  // A click selects one token; with Shift it adds one to those shown together, or takes it out.
  lens.pickToken = function (token, together) {
    const also = (lens.wanted("also") || "").split(",").filter(Boolean);
    if (!together) return lens.pick({ token: token, also: "" });
    if (token === lens.wanted("token")) {
      if (also.length) lens.pick({ token: also[0], also: also.slice(1).join(",") });
      return undefined;
    }
    const rest = also.includes(token) ? also.filter((one) => one !== token) : [...also, token];
    return lens.pick({ also: rest.join(",") });
  };

  lens.press = ({ place, ...told }) =>
    window.dash_clientside.set_props(place, { data: { ...told, at: Date.now() } });

  const BUTTONS = {
    play: () => lens.play(),
    loop: () => lens.loop(),
    "previous-prompt": () => stepPrompt(-1),
    "next-prompt": () => stepPrompt(1),
    "show-keys": () => byId("keys").showModal(),
    "close-keys": () => byId("keys").close(),
    "copy-link": () => lens.copyLink(),
  };

  document.addEventListener("click", function (event) {
    const closest = (selector) => event.target.closest && event.target.closest(selector);
    const button = closest("button, a");
    if (button && BUTTONS[button.id]) return BUTTONS[button.id]();
    const page = closest("[data-page]");
    if (page && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      return lens.pick({ page: page.dataset.page });
    }
    const picks = closest("[data-pick]"); // any element may carry what a click on it selects
    if (picks) return lens.pick(JSON.parse(picks.dataset.pick));
    // A button that comes and goes names the store that is told of a click on it.
    const press = closest("[data-press]");
    if (press) return lens.press(JSON.parse(press.dataset.press));
    const token = closest("[data-token]");
    if (token && lens.selection) return lens.pickToken(token.dataset.token, event.shiftKey);
    return undefined;
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

  // Elements with a use of their own for the keys keep them.
  const KEEPS = "input, textarea, select, dialog[open], [role=radio], [role=option], [contenteditable]";
  const MOVES = {
    ArrowLeft: (step) => lens.goTo(lens.further(-step)),
    ArrowRight: (step) => lens.goTo(lens.further(step)),
    Home: () => lens.goTo(0),
    End: () => lens.goTo(lens.lastIteration()),
    " ": () => lens.play(),
    "[": () => stepToken(-1),
    "]": () => stepToken(1),
    n: () => lens.nextMatch && lens.nextMatch(1),
    N: () => lens.nextMatch && lens.nextMatch(-1),
    "?": () => byId("keys").showModal(),
  };
  const ON_SLIDER = { ArrowDown: MOVES.ArrowLeft, ArrowUp: MOVES.ArrowRight };

  function onDigit(key) {
    const link = /^[1-9]$/.test(key) && document.querySelectorAll("[data-page]")[Number(key) - 1];
    return link ? () => lens.pick({ page: link.dataset.page }) : null;
  }

  function keeps(event) {
    return (event.key === " " && event.target.closest("button, a")) || event.target.closest(KEEPS);
  }

  function keydown(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !lens.selection) return;
    const onSlider = event.target.closest("[role=slider]") && ON_SLIDER[event.key];
    const act = onSlider || MOVES[event.key] || onDigit(event.key);
    if (!act) return;
    if (event.target === clicked && clicked.matches(CLICKED)) {
      clicked.blur();
    } else if (keeps(event)) {
      return;
    }
    act(event.shiftKey && event.key.startsWith("Arrow") ? 10 : 1);
    event.preventDefault();
    event.stopPropagation();
  }
  document.addEventListener("keydown", keydown, true); // before the slider's own use of the keys
})();
