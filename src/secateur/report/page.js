document.querySelectorAll('.tabs button').forEach(function (button) {
  button.addEventListener('click', function () {
    document.querySelectorAll('.tabs button').forEach(function (b) { b.setAttribute('aria-pressed', String(b === button)); });
    document.querySelectorAll('.panel').forEach(function (panel) {
      panel.hidden = panel.id !== 'panel-' + button.dataset.axis;
      if (!panel.hidden) { panel.querySelectorAll('.plotly-graph-div').forEach(function (g) { Plotly.Plots.resize(g); }); }
    });
  });
});
