// The token strip: the numbers of the token under the pointer or the focus, and the way to matches.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  let sent = null; // what the server sent beside the strip
  let asked = 0; // how many matches on from what the strip shows was asked for
  let tip = null;

  lens.frames = lens.frames || {};
  lens.frames.strip = function (body, frames) {
    if (frames === sent) return;
    sent = frames;
    asked = 0;
    const chosen = body.querySelector(".token.selected");
    const box = chosen && chosen.parentElement;
    if (!box) return;
    // Within the strip only: the page must not move because a token was chosen.
    const above = chosen.offsetTop - box.offsetTop;
    if (above < box.scrollTop || above + chosen.offsetHeight > box.scrollTop + box.clientHeight) {
      box.scrollTop = above - chosen.offsetHeight - 8; // with one row of what comes before
    }
  };

  // Several keys may come before the server has answered the first: they count from where it is.
  lens.nextMatch = function (step) {
    if (!sent || !lens.selection.filter) return lens.say("There is no filter.");
    if (!sent.next.length) return lens.say("No token matches the filter.");
    let at = asked + step;
    if (at === 0 && !sent.matches) at += step;
    if (Math.abs(at) > sent.next.length) return undefined;
    asked = at;
    const ways = at > 0 ? sent.next : sent.previous;
    return lens.pick({ token: at ? String(ways[Math.abs(at) - 1]) : sent.token, also: "" });
  };

  function show(button) {
    const row = sent && sent.rows[Number(button.dataset.token) - sent.first];
    if (!row) return;
    if (!tip) {
      tip = document.createElement("div");
      tip.className = "token-tip";
      tip.id = "token-tip";
      tip.setAttribute("role", "tooltip");
      (document.querySelector(".page") || document.body).append(tip);
    }
    const title = document.createElement("strong");
    title.textContent = row[0];
    const list = document.createElement("dl");
    sent.names.forEach(function (name, index) {
      if (row[index + 1] === "–") return;
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      value.textContent = row[index + 1];
      list.append(term, value);
    });
    tip.replaceChildren(title, list);
    tip.hidden = false;
    const [place, size] = [button.getBoundingClientRect(), tip.getBoundingClientRect()];
    const left = Math.min(place.left, window.innerWidth - size.width - 8);
    const below = place.bottom + 6;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (below + size.height > window.innerHeight ? Math.max(8, place.top - size.height - 6) : below) + "px";
    button.setAttribute("aria-describedby", "token-tip");
  }

  function hide() {
    if (tip) tip.hidden = true;
  }

  const inStrip = (target) => target.closest && target.closest(".tokens .token");
  ["pointerover", "focusin"].forEach((kind) =>
    document.addEventListener(kind, function (event) {
      const button = inStrip(event.target);
      if (button && (kind === "pointerover" || button.matches(":focus-visible"))) show(button);
      else if (kind === "pointerover") hide();
    }),
  );
  ["focusout", "scroll", "pointerdown"].forEach((kind) => document.addEventListener(kind, hide, true));
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
