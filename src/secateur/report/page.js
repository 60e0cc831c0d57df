'use strict';
(function () {
  var config = { displaylogo: false, modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'] };
  var PAPER = 680; // pixels between the margins of a printed page
  var NARROW = 520;

  function legendRows(figure, width) { // a legend wraps on a narrow page, and must not eat the axes
    var letters = figure.data.filter(function (t) { return t.showlegend !== false; })
      .reduce(function (sum, t) { return sum + (t.name || '').length * 7 + 50; }, 0);
    return Math.ceil(letters / width);
  }

  function draw(box, width) { // at first show, when its width is known
    var figure = JSON.parse(document.getElementById(box.id + '-data').textContent);
    var narrow = width < NARROW;
    if (narrow) {
      figure.layout.margin.l = 40;
      figure.layout.margin.t = 12; // no buttons there
      figure.layout.font.size = 12;
      figure.data.forEach(function (trace) { if (trace.type === 'bar') { trace.textposition = 'none'; } }); // no room for words
    }
    if (width === PAPER && box.id.indexOf('front') === 0) { figure.layout.height = Math.min(figure.layout.height, 400); }
    figure.layout.height += 20 * Math.max(0, legendRows(figure, width) - 1);
    figure.layout.width = width;
    Plotly.react(box, figure.data, figure.layout, Object.assign({ displayModeBar: narrow ? false : 'hover' }, config));
    box.dataset.width = width;
  }

  function drawAll(width) {
    document.querySelectorAll('.figure').forEach(function (box) {
      var wide = width || box.clientWidth;
      if (wide > 0 && String(wide) !== box.dataset.width) { draw(box, wide); }
    });
  }

  document.querySelectorAll('.tabs button').forEach(function (button) {
    button.addEventListener('click', function () {
      button.parentElement.querySelectorAll('button').forEach(function (other) {
        var chosen = other === button;
        other.setAttribute('aria-pressed', String(chosen));
        document.getElementById(other.dataset.panel).hidden = !chosen;
      });
      drawAll();
    });
  });

  var waiting = null;
  var closed = [];
  window.addEventListener('resize', function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () { drawAll(); }, 100);
  });
  window.addEventListener('beforeprint', function () {
    clearTimeout(waiting);
    closed = Array.from(document.querySelectorAll('details:not([open])'));
    closed.forEach(function (part) { part.open = true; });
    drawAll(PAPER);
  });
  window.addEventListener('afterprint', function () {
    closed.forEach(function (part) { part.open = false; });
    drawAll();
  });
  drawAll();
}());
