// @ts-check
"use strict";
/* Histograms with draggable thresholds, and scatter plots, drawn by uPlot. */

/** @typedef {{to: (value: number) => number, from: (place: number) => number, isEven: boolean}} Warp from values to places on an axis */
/** @typedef {{lo: number, width: number, count: number, places: Uint8Array, warp: Warp}} Bins values by bin, evenly on the axis; 255 is missing */

const BINS = 48;
const NO_BIN = 255;
const MOST_POINTS = 20000;

/** A colour or size of the style sheet. @param {string} name @returns {string} */
function styled(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** @param {number|null} value @returns {string} */
function shown(value) {
  if (value === null || value !== value) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 && size < 1e12) return size < 1e9 ? `${Number((value / 1e6).toPrecision(4))}M` : `${Number((value / 1e9).toPrecision(4))}G`;
  if (size >= 1e12 || (size > 0 && size < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 1000 ? 6 : 4)));
}

/** A number as other programs read it. @param {number} value @returns {string} */
function plain(value) {
  return String(Number(value.toPrecision(5)));
}

/** What lies between the outermost half percents, and the thresholds. @param {Float64Array} values @param {(number|null)[]} bounds @returns {[number, number]} */
function rangeOf(values, bounds) {
  const step = Math.max(1, Math.floor(values.length / 50000));
  const some = values.filter((value, row) => row % step === 0 && value === value).sort();
  const kept = bounds.filter((bound) => bound !== null);
  const ends = some.length ? [some[Math.floor(0.005 * (some.length - 1))], some[Math.ceil(0.995 * (some.length - 1))]] : [];
  const lo = Math.min(...ends, ...kept);
  const hi = Math.max(...ends, ...kept);
  if (!(lo <= hi)) return [0, 1];
  const margin = (hi - lo || Math.abs(hi) || 1) * 0.03;
  return [lo >= 0 && lo < 4 * margin ? 0 : lo - margin, hi + margin];
}

/** @type {Warp} */
const EVEN = { to: (value) => value, from: (place) => place, isEven: true };

/** An axis for values of which most crowd at one end: even near zero, logarithmic beyond. @param {Float64Array} values @param {[number, number]} range @returns {Warp} */
function warpOf(values, [lo, hi]) {
  const step = Math.max(1, Math.floor(values.length / 50000));
  const some = values.filter((value, row) => row % step === 0 && value > 0).sort();
  const middle = some[Math.floor(some.length / 2)];
  if (!(lo >= 0) || !(hi > 12 * middle)) return EVEN;
  const unit = middle / 2;
  return { to: (value) => Math.asinh(value / unit), from: (place) => unit * Math.sinh(place), isEven: false };
}

/** Round values for the ticks of an axis that is not even. @param {Warp} warp @param {number} lo @param {number} hi @returns {number[]} */
function ticksOf(warp, lo, hi) {
  /** @type {number[]} */
  const kept = [];
  const rounds = [0];
  for (let power = -6; power < 12; power++) for (const digit of [1, 2, 5]) rounds.push(digit * 10 ** power);
  for (const value of rounds) {
    const place = warp.to(value);
    if (place >= lo && place <= hi && (!kept.length || place - kept[kept.length - 1] > (hi - lo) / 7)) kept.push(place);
  }
  return kept;
}

/** @param {Float64Array} values @param {[number, number]} range @param {boolean} isWhole @param {Warp} warp @returns {Bins} */
function binned(values, [lo, hi], isWhole, warp = EVEN) {
  [lo, hi] = [warp.to(lo), warp.to(hi)];
  if (isWhole && warp.isEven) lo = Math.floor(lo) - 0.5;
  else isWhole = false;
  const width = isWhole ? Math.max(1, Math.ceil((hi - lo) / BINS)) : (hi - lo) / BINS;
  const count = Math.max(1, Math.min(BINS, Math.ceil((hi - lo) / width - 1e-9)));
  const places = new Uint8Array(values.length);
  for (let row = 0; row < values.length; row++) {
    const place = Math.floor((warp.to(values[row]) - lo) / width);
    places[row] = place !== place ? NO_BIN : place < 0 ? 0 : place >= count ? count - 1 : place;
  }
  return { lo, width, count, places, warp };
}

/** Rows by bin: all that could be measured, and the accepted ones. @param {Bins} bins @param {Uint8Array} status @returns {[number[], number[]]} */
function counted(bins, status) {
  const all = new Float64Array(256);
  const accepted = new Float64Array(256);
  const { places } = bins;
  for (let row = 0; row < places.length; row++) {
    all[places[row]]++;
    if (status[row] === ACCEPTED) accepted[places[row]]++;
  }
  return [Array.from(all.subarray(0, bins.count)), Array.from(accepted.subarray(0, bins.count))];
}

/** @returns {any} */
function axis() {
  const stroke = () => styled("--quiet");
  const font = "11px system-ui, sans-serif";
  return { stroke, font, ticks: { stroke: () => styled("--line"), size: 4 }, grid: { stroke: () => styled("--line"), width: 0.5 } };
}

/**
 * Bars: for each series the heights, drawn one before the other.
 * @param {HTMLElement} place @param {Bins} bins @param {number[][]} series @param {string[]} colors @param {number} height_px
 * @param {() => void} drawn called once its scales are known
 */
function bars(place, bins, series, colors, height_px, drawn = () => {}) {
  const x = Array.from({ length: bins.count }, (_, i) => bins.lo + i * bins.width);
  const paths = uPlot.paths.bars?.({ align: 1, size: [1, Infinity], gap: 1 });
  return new uPlot(
    {
      width: Math.max(120, place.clientWidth),
      height: height_px,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: [bins.lo, bins.lo + bins.count * bins.width] }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
      axes: [
        { ...axis(), size: 26, space: 48, ...(bins.warp.isEven ? {} : { splits: () => ticksOf(bins.warp, x[0], x[0] + bins.count * bins.width), values: (_, places) => places.map((place) => shown(bins.warp.from(place))) }) }, { ...axis(), size: 44, space: 28, values: (_, ticks) => ticks.map((n) => (Number.isInteger(n) ? compact(n) : "")) }],
      series: [{}, ...colors.map((color) => ({ paths, points: { show: false }, fill: () => styled(color), width: 0 }))],
      hooks: { ready: [drawn], setSize: [drawn] },
    },
    [x, ...series],
    place,
  );
}

/** @param {number} n @returns {string} */
function compact(n) {
  return n >= 1e6 ? `${n / 1e6}M` : n >= 1e4 ? `${n / 1e3}k` : String(n);
}

/** One column's distribution with its rule. */
class Histogram {
  /**
   * @param {Output} output @param {Facts["columns"][0]} column @param {Rule|null} rule @param {HTMLElement} place
   * @param {(column: string, side: "min"|"max", value: number|null) => void} moved
   */
  constructor(output, column, rule, place, moved) {
    this.column = column;
    this.moved = moved;
    const values = numbersOf(output, column.name);
    const range = rangeOf(values, rule ? [rule.min, rule.max] : []);
    this.bins = binned(values, range, column.is_whole, warpOf(values, range));
    /** @type {uPlot|null} */
    this.plot = null;
    this.place = place;
    /** @type {Record<string, HTMLElement>} */
    this.handles = {};
    /** @type {Rule|null} */
    this.rule = rule;
  }

  /** @param {Uint8Array} status @param {Rule|null} rule */
  show(status, rule) {
    this.rule = rule;
    const [all, accepted] = counted(this.bins, status);
    if (!this.plot) {
      this.plot = bars(this.place, this.bins, [all, accepted], ["--rejected", "--accepted"], 150, () => queueMicrotask(() => this.settle()));
      if (this.column.is_judgeable) for (const side of /** @type {("min"|"max")[]} */ (["min", "max"])) this.handles[side] = this.handle(side);
      new ResizeObserver(() => this.resize()).observe(this.place);
    } else {
      this.plot.setData([this.plot.data[0], all, accepted]);
    }
    this.settle();
  }

  resize() {
    if (!this.plot || Math.abs(this.plot.width - this.place.clientWidth) < 1 || !this.place.clientWidth) return;
    this.plot.setSize({ width: this.place.clientWidth, height: 150 });
  }

  redraw() {
    this.plot?.redraw(false, true);
  }

  /** Where the axis ends on a side, as a place on it. @param {"min"|"max"} side @returns {number} */
  end(side) {
    return side === "min" ? this.bins.lo : this.bins.lo + this.bins.count * this.bins.width;
  }

  /** Where a threshold stands on the axis; off: at the end. @param {"min"|"max"} side @returns {number} */
  stand(side) {
    const value = this.rule ? this.rule[side] : null;
    return value === null ? this.end(side) : Math.min(Math.max(this.bins.warp.to(value), this.end("min")), this.end("max"));
  }

  settle() {
    for (const side of /** @type {("min"|"max")[]} */ (["min", "max"])) {
      const handle = this.handles[side];
      if (!handle || !this.plot) continue;
      const value = this.rule ? this.rule[side] : null;
      const inside = this.bins.warp.from(this.stand(side));
      handle.style.left = `${this.plot.valToPos(this.stand(side), "x")}px`;
      handle.classList.toggle("off", value === null);
      handle.setAttribute("aria-valuenow", plain(inside));
      handle.setAttribute("aria-valuetext", value === null ? "off" : `${shown(value)} ${this.column.unit}`);
    }
  }

  /** @param {"min"|"max"} side @returns {HTMLElement} */
  handle(side) {
    const plot = /** @type {uPlot} */ (this.plot);
    const handle = document.createElement("div");
    handle.className = `handle ${side}`;
    handle.tabIndex = 0;
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", `${side} of ${this.column.name}`);
    handle.setAttribute("aria-valuemin", plain(this.bins.warp.from(this.end("min"))));
    handle.setAttribute("aria-valuemax", plain(this.bins.warp.from(this.end("max"))));
    handle.dataset.column = this.column.name;
    handle.dataset.side = side;
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = plot.over.getBoundingClientRect();
      this.give(side, plot.posToVal(event.clientX - box.left, "x"));
    });
    handle.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (event.key === "Home") this.give(side, this.end("min"));
      else if (event.key === "End") this.give(side, this.end("max"));
      else if (steps) this.give(side, this.stand(side) + (steps * (this.end("max") - this.end("min"))) / 200);
      else return;
      event.preventDefault();
    });
    plot.over.append(handle);
    return handle;
  }

  /** Move a threshold to a place on the axis; at the axis's end it is off. @param {"min"|"max"} side @param {number} place */
  give(side, place) {
    const reach = this.end("max") - this.end("min");
    const isOff = side === "min" ? place <= this.end("min") + reach * 1e-3 : place >= this.end("max") - reach * 1e-3;
    const { from } = this.bins.warp;
    const fine = from(place + reach / 1000) - from(place - reach / 1000);
    const digits = Math.min(12, Math.max(0, Math.ceil(-Math.log10(fine))));
    this.moved(this.column.name, side, isOff ? null : Number(from(place).toFixed(digits)));
  }
}

/** Two scores of every clip against each other; of very many rows a sample. */
class Scatter {
  /** @param {Output} output @param {HTMLElement} place @param {(row: number) => void} picked */
  constructor(output, place, picked) {
    this.output = output;
    this.place = place;
    this.picked = picked;
    /** @type {uPlot|null} */
    this.plot = null;
    /** @type {number[]} */
    this.rows = [];
  }

  /** @param {string} x @param {string} y @param {Uint8Array} status @returns {number} points shown */
  show(x, y, status) {
    this.plot?.destroy();
    const xs = numbersOf(this.output, x);
    const ys = numbersOf(this.output, y);
    const step = Math.max(1, Math.ceil(xs.length / MOST_POINTS));
    this.rows = [];
    for (let row = 0; row < xs.length; row += step) if (xs[row] === xs[row] && ys[row] === ys[row]) this.rows.push(row);
    this.rows.sort((a, b) => xs[a] - xs[b]);
    const at = (/** @type {number} */ wanted) => this.rows.map((row) => ((status[row] === ACCEPTED ? 1 : 0) === wanted ? ys[row] : null));
    const dots = (/** @type {string} */ color) => ({ paths: () => null, points: { show: true, size: 5, width: 0, fill: () => styled(color) } });
    const label = (/** @type {string} */ name) => ({ ...axis(), label: name, labelSize: 18, labelFont: "12px system-ui, sans-serif" });
    this.plot = new uPlot(
      {
        width: Math.max(200, this.place.clientWidth),
        height: 360,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { x: { time: false, range: rangeOf(xs, []) }, y: { range: rangeOf(ys, []) } },
        axes: [{ ...label(x), size: 34 }, { ...label(y), size: 52 }],
        series: [{}, dots("--rejected"), dots("--accepted")],
        hooks: { ready: [(plot) => plot.over.addEventListener("click", () => this.pick(plot, xs, ys))] },
      },
      [this.rows.map((row) => xs[row]), at(0), at(1)],
      this.place,
    );
    return this.rows.length;
  }

  /** Open the clip next to the pointer. @param {uPlot} plot @param {Float64Array} xs @param {Float64Array} ys */
  pick(plot, xs, ys) {
    const { left, top } = plot.cursor;
    if (left === undefined || top === undefined) return;
    let best = -1;
    let nearest = 400;
    for (const row of this.rows) {
      const away = (plot.valToPos(xs[row], "x") - left) ** 2 + (plot.valToPos(ys[row], "y") - top) ** 2;
      if (away < nearest) [nearest, best] = [away, row];
    }
    if (best >= 0) this.picked(best);
  }
}
