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

  const text = (value) => (Array.isArray(value) ? value.join(",") : String(value ?? ""));

  // Shows a text of the selection in a control, as the kind of value that the control has.
  function show(id, before, wanted) {
    let value = wanted;
    if (Array.isArray(before)) value = wanted.split(",").filter(Boolean);
    if (typeof before === "number") value = Number(wanted);
    set(id, { value: value });
  }

  clientside.choose = function (values, ids) {
    const selection = lens.selection;
    if (!selection) return;
    const triggered = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id);
    const believed = performance.now() - touched < BELIEVED;
    const chosen = {};
    ids.forEach(function (id, index) {
      const wanted = lens.wanted(id.control);
      if (wanted === undefined || text(values[index]) === wanted) return;
      if (believed && triggered.includes(JSON.stringify(id) + ".value")) {
        chosen[id.control] = text(values[index]);
      } else {
        show(id, values[index], wanted);
      }
    });
    if (Object.keys(chosen).length) lens.pick(chosen);
  };

  // Controls follow the selection, but for what was chosen and is not answered yet.
  clientside.agree = function (selection, values, ids) {
    if (!selection || selection.problem) return;
    ids.forEach(function (id, index) {
      const waiting = lens.selection && lens.wanted(id.control) !== lens.selection[id.control];
      const wanted = selection[id.control];
      if (!waiting && wanted !== undefined && text(values[index]) !== wanted) {
        show(id, values[index], wanted);
      }
    });
  };
})();
