// What a page owes to readers who use it without a mouse, or see it otherwise: names of controls,
// one id for one element, texts that stand out, nothing wider than the window. Evaluated in the page
// by test_every_page_browser.py; returns sentences, none when all is well.
() => {
  "use strict";
  const problems = [];
  const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const told = (element) => {
    const panel = element.closest("[data-panel]");
    const where = panel ? panel.dataset.panel + ": " : "";
    return where + element.outerHTML.replace(/\s+/g, " ").slice(0, 140);
  };

  // Names of controls
  const labelled = (element) =>
    (element.getAttribute("aria-labelledby") || "")
      .split(" ")
      .map((id) => (document.getElementById(id) || {}).textContent || "")
      .join("");
  const CONTROLS =
    "button, a[href], input, select, textarea, [role=slider], [role=radio], [role=menuitem], [role=tab], summary";
  document.querySelectorAll(CONTROLS).forEach((element) => {
    if (element.type === "hidden" || !shown(element) || element.closest("[aria-hidden=true]")) return;
    const name =
      element.getAttribute("aria-label") ||
      labelled(element) ||
      Array.from(element.labels || [], (label) => label.textContent).join("") ||
      element.textContent ||
      element.title;
    if (!(name || "").trim()) problems.push("a control without a name: " + told(element));
  });
  document.querySelectorAll("[data-panel]").forEach((panel) => {
    if (!panel.getAttribute("aria-label")) problems.push("a panel without a name: " + told(panel));
  });

  // One id for one element
  const ids = new Map();
  document.querySelectorAll("[id]").forEach((element) => {
    if (!element.closest("svg")) ids.set(element.id, (ids.get(element.id) || 0) + 1);
  });
  ids.forEach((count, id) => count > 1 && problems.push(count + " elements have the id " + id));

  // Contrast of texts with what is behind them
  const parsed = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    const whole = colour.startsWith("color(") ? 255 : 1; // color(srgb 0.8 ...), of a mixture
    const [r, g, b, opacity = 1] = numbers;
    return [r * whole, g * whole, b * whole, opacity];
  };
  const over = (top, below) => [0, 1, 2].map((n) => top[n] * top[3] + below[n] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const colour = parsed(style.backgroundColor);
      if (style.backgroundImage !== "none") return null; // a picture decides
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || element.closest("script, style, [disabled]")) continue;
    if (!shown(element)) continue;
    const style = getComputedStyle(element);
    const svg = Boolean(element.closest("svg"));
    const host = svg ? element.closest(".js-plotly-plot") || element.closest("svg") : element;
    const back = behind(host);
    const colour = svg ? style.fill : style.color;
    if (!back || !/^(rgb|color\(srgb)/.test(colour)) continue;
    const ink = parsed(colour);
    // A text on a mark of a figure has a background that no style tells.
    if (svg && element.closest(".barlayer, .heatmaplayer, .textpoint, .annotation, .g-gtitle, .scatterlayer")) continue;
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && Number(style.fontWeight) >= 700);
    const found = contrast(over([...ink.slice(0, 3), ink[3] * Number(style.opacity)], back), back);
    const mark = !/[\p{L}\p{N}]/u.test(element.textContent); // a symbol counts as a picture
    const key = colour + back + element.className;
    if (found < (large || mark ? 3 : 4.5) && !seen.has(key)) {
      seen.add(key);
      problems.push("contrast " + found.toFixed(2) + " of " + JSON.stringify(element.textContent.slice(0, 40)) + " in " + told(element));
    }
  }

  // Nothing wider than the window
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) problems.push("the page is " + wide + " pixels wider than the window");
  document.querySelectorAll("[data-panel]").forEach((panel) => {
    const box = panel.getBoundingClientRect();
    if (box.width && box.right > window.innerWidth + 1) problems.push("outside of the window: " + told(panel));
    const header = panel.querySelector("header");
    if (header && header.scrollWidth > header.clientWidth + 1) problems.push("a heading that overflows: " + told(panel));
  });
  return problems;
}
