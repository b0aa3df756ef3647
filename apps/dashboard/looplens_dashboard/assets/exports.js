// Out of the app: the menu of a panel, the link to the view, the page as one file.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const byId = (id) => document.getElementById(id);
  let opener = null;

  // The address that gives a panel, or the page, in some form for what is selected now.
  lens.exportAddress = function (name, kind) {
    const query = lens.address().split("?")[1];
    return "/export/" + lens.selection.page + "/" + name + "." + kind + "?" + query;
  };

  function close() {
    const menu = byId("export-menu");
    if (menu.hidden) return;
    menu.hidden = true;
    if (opener) opener.focus();
    opener = null;
  }

  function open(button) {
    const menu = byId("export-menu");
    const figure = button.dataset.figure === "yes" && lens.graph(button.dataset.export);
    menu.querySelectorAll("[data-as=png], [data-as=svg]").forEach((item) => (item.hidden = !figure));
    menu.hidden = false;
    const box = button.getBoundingClientRect();
    menu.style.top = box.bottom + window.scrollY + 4 + "px";
    menu.style.left = box.right + window.scrollX - menu.offsetWidth + "px";
    opener = button;
    menu.querySelector("[role=menuitem]:not([hidden])").focus();
  }

  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      lens.say(what + " copied");
    } catch (error) {
      window.prompt(what, text); // no clipboard without a secure connection
    }
  }

  // Fetched, so that an answer that is no file can be shown as words.
  async function download(address) {
    lens.say("Saving…");
    const answer = await fetch(address);
    if (!answer.ok) return lens.say(await answer.text());
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = (answer.headers.get("Content-Disposition") || "").split("''")[1] || "";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    return lens.say("Saved as " + link.download);
  }

  async function give(name, kind) {
    const graph = lens.graph(name);
    if (kind === "png" || kind === "svg") {
      const size = { width: graph.offsetWidth, height: graph.offsetHeight, scale: 2 };
      return window.Plotly.downloadImage(graph, { format: kind, filename: name, ...size });
    }
    const address = lens.exportAddress(name, kind);
    if (kind !== "py") return download(address);
    const answer = await fetch(address);
    const text = await answer.text();
    return answer.ok ? copy(text, "Python") : lens.say(text);
  }

  lens.copyLink = function () {
    const address = lens.address();
    if (address) copy(window.location.origin + address, "Link");
  };

  document.addEventListener("click", function (event) {
    const closest = (selector) => event.target.closest && event.target.closest(selector);
    const item = closest("#export-menu [data-as]");
    if (item) {
      const name = opener.dataset.export;
      close();
      return give(name, item.dataset.as);
    }
    const button = closest("[data-export]");
    if (button) return button === opener ? close() : open(button);
    const page = closest("#save-page");
    if (page && lens.address()) {
      event.preventDefault();
      return download(lens.exportAddress("page", "html"));
    }
    return close();
  });

  document.addEventListener("keydown", function (event) {
    const menu = byId("export-menu");
    if (!menu || menu.hidden) return;
    const items = Array.from(menu.querySelectorAll("[role=menuitem]:not([hidden])"));
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") close();
    if (!step) return;
    items[(at + step + items.length) % items.length].focus();
    event.preventDefault();
    event.stopPropagation();
  }, true);
})();
