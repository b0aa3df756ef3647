// The table of what the model would say at the scrubbed iteration, from what panels/readout.py sent.
(function () {
  "use strict";
  const clientside = ((window.dash_clientside = window.dash_clientside || {}).looplens =
    window.dash_clientside.looplens || {});

  function element(type, props) {
    return { namespace: "dash_html_components", type: type, props: props };
  }

  function percent(share) {
    if (share === null) return "–";
    if (share > 0 && share < 0.0005) return "< 0.1 %";
    return (100 * share).toFixed(1) + " %";
  }

  function nats(value) {
    if (value === null) return "–";
    return (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3)) + " nats";
  }

  function row(text, share, isTarget) {
    const bar = element("Div", {
      className: "bar",
      style: { width: 100 * Math.min(1, share || 0) + "%" },
    });
    const label = isTarget ? [text, element("Span", { children: "target", className: "tag" })] : text;
    return element("Tr", {
      className: isTarget ? "target" : "",
      children: [
        element("Th", { children: label, scope: "row" }),
        element("Td", { children: element("Div", { children: bar, className: "track" }) }),
        element("Td", { children: percent(share), className: "number" }),
      ],
    });
  }

  function targetText(data, at) {
    const target = data.target;
    if (!target) return "none for this token";
    const name = data.texts[target.id];
    return `“${name}” ${percent(target.probability[at])}, rank ${target.rank[at] + 1}`;
  }

  clientside.readout = function (opened, data) {
    const iteration = window.looplens.standsAt(opened);
    if (!data || iteration === null) return null;
    if (iteration === 0) {
      return element("Div", {
        className: "message",
        children: "Iteration 0 is the state before the first pass: nothing has been read out yet.",
      });
    }
    const at = data.iterations.indexOf(iteration);
    if (at < 0) return null; // not kept
    const rows = data.ids[at].map((id, rank) =>
      row(data.texts[id], data.probabilities[at][rank], data.target && data.target.id === id),
    );
    const facts = [
      ["Target", targetText(data, at)],
      ["Entropy", nats(data.entropy[at])],
      ["KL from the previous", nats(data.change[at])],
    ];
    return [
      element("Table", { className: "predictions", children: element("Tbody", { children: rows }) }),
      element("Dl", {
        className: "readout-facts",
        children: facts.map(([name, text]) =>
          element("Div", {
            children: [element("Dt", { children: name }), element("Dd", { children: text })],
          }),
        ),
      }),
    ];
  };
})();
