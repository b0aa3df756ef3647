// What the reader chooses in a control, told to the selection.
(function () {
  "use strict";
  const lens = (window.looplens = window.looplens || {});
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});
  const set = (id, props) => window.dash_clientside.set_props(id, props);

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
        if (inside) touched = performance.now();
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
})();
