// @ts-check
"use strict";
/* The page of two outputs: their funnels, their distributions, and the clips they judge differently. */

/** @param {string} id @returns {HTMLElement} */
const byId = (id) => part(document, `#${id}`);

/** @param {number} n @returns {string} */
const grouped = (n) => n.toLocaleString("en-US");

/** @param {number} count @param {number} of @returns {string} */
const share = (count, of) => (of && count ? `${((100 * count) / of).toFixed(count < of / 100 ? 1 : 0)} %` : "");

/** Largest distance between two distributions (Kolmogorov and Smirnov), 0..1; what is missing does not count. @param {Float64Array} a @param {Float64Array} b @returns {number} */
function distance(a, b) {
  const [x, y] = [a, b].map((values) => values.filter((value) => value === value).sort());
  if (!x.length || !y.length) return NaN;
  let most = 0;
  for (let i = 0, j = 0; i < x.length && j < y.length; ) {
    const value = Math.min(x[i], y[j]);
    while (i < x.length && x[i] <= value) i++;
    while (j < y.length && y[j] <= value) j++;
    most = Math.max(most, Math.abs(i / x.length - j / y.length));
  }
  return most;
}

/** @param {Float64Array} values @returns {number} */
function median(values) {
  const some = values.filter((value) => value === value).sort();
  return some.length ? some[Math.floor((some.length - 1) / 2)] : NaN;
}

/** @param {Verdicts} a @param {Verdicts} b @param {number} rowsA @param {number} rowsB */
function showFunnels(a, b, rowsA, rowsB) {
  const counts = (/** @type {Verdicts} */ v) => new Map([["failed", v.failed], ...v.names.map((name, i) => /** @type {[string, number]} */ ([name, v.lost[i]])), ["accepted", v.accepted]]);
  const [inA, inB] = [counts(a), counts(b)];
  const names = [...new Set([...inA.keys(), ...inB.keys()])].filter((name) => name === "accepted" || inA.get(name) || inB.get(name));
  names.sort((x, y) => Number(x === "accepted") - Number(y === "accepted"));
  byId("funnel-rows").replaceChildren(
    ...names.map((name) => {
      const line = copyOf("funnel-line");
      line.dataset.reason = name;
      if (name === "accepted") line.classList.add("accepted");
      part(line, "th").textContent = name;
      for (const [side, counted, rows] of /** @type {[string, Map<string, number>, number][]} */ ([["a", inA, rowsA], ["b", inB, rowsB]])) {
        part(line, `.${side}`).textContent = grouped(counted.get(name) ?? 0);
        part(line, `.share-${side}`).textContent = share(counted.get(name) ?? 0, rows);
      }
      return line;
    }),
  );
}

/** @param {Output} output @param {string} column @param {Uint8Array|null} status take accepted clips only @returns {Float64Array} */
function valuesOf(output, column, status) {
  const values = numbersOf(output, column);
  return status ? values.filter((_, row) => status[row] === ACCEPTED) : values;
}

/** @param {Output} a @param {Output} b @param {[Uint8Array, Uint8Array]|null} accepted look at accepted clips only */
function showScores(a, b, accepted) {
  byId("score-list").replaceChildren();
  const both = a.facts.columns.filter((column) => column.is_plotted && b.numbers.has(column.name));
  const measured = both.map((column) => {
    const [x, y] = [valuesOf(a, column.name, accepted && accepted[0]), valuesOf(b, column.name, accepted && accepted[1])];
    return { column, x, y, away: distance(x, y) };
  });
  const apart = measured.filter(({ away }) => away === away).sort((one, other) => other.away - one.away);
  for (const { column, x, y, away } of apart) {
    const figure = copyOf("score");
    figure.dataset.column = column.name;
    part(figure, "h3").textContent = column.name;
    part(figure, ".unit").textContent = column.unit;
    part(figure, ".meaning").textContent = column.meaning;
    part(figure, ".medians").textContent = `medians ${shown(median(x))} and ${shown(median(y))}; distance of the distributions ${away.toFixed(2)}`;
    byId("score-list").append(figure);
    const all = new Float64Array(x.length + y.length);
    all.set(x);
    all.set(y, x.length);
    const range = rangeOf(all, []);
    const warp = warpOf(all, range);
    const series = [x, y].map((values) => {
      const [counts] = counted(binned(values, range, column.is_whole, warp), new Uint8Array(values.length));
      const total = counts.reduce((sum, count) => sum + count, 0) || 1;
      return counts.map((count) => (100 * count) / total);
    });
    bars(part(figure, ".plot"), binned(x, range, column.is_whole, warp), series, ["--first", "--second"], 150);
  }
}

/** @param {Cards} cards @param {Verdicts} verdicts @param {string} title @param {number[]} rows @returns {HTMLElement} */
function paneOf(cards, verdicts, title, rows) {
  const pane = copyOf("pane");
  part(pane, "h3").textContent = title;
  part(pane, ".cards").append(...rows.map((row) => cards.card(row, verdicts, null)));
  if (!rows.length) part(pane, ".cards").textContent = "none";
  return pane;
}

async function main() {
  const [a, b] = [await unpackOutput("a"), await unpackOutput("b")];
  const same = new Float64Array(regrouped(await unzipped("a-same"), 8));
  const judges = [new Judge(a), new Judge(b)];
  const [inA, inB] = [judges[0].judge(a.facts.rules), judges[1].judge(b.facts.rules)];
  byId("accepted-a").textContent = grouped(inA.accepted);
  byId("accepted-b").textContent = grouped(inB.accepted);
  byId("rows-a").textContent = grouped(a.facts.rows);
  byId("rows-b").textContent = grouped(b.facts.rows);
  showFunnels(inA, inB, a.facts.rows, b.facts.rows);
  /** @type {number[]} */
  const lost = [];
  /** @type {number[]} */
  const gained = [];
  let shared = 0;
  let changed = 0;
  for (let row = 0; row < same.length; row++) {
    if (same[row] !== same[row]) continue;
    shared++;
    const [before, after] = [inA.status[row], inB.status[same[row]]];
    if (before === after) continue;
    changed++;
    if (before === ACCEPTED) lost.push(same[row]);
    else if (after === ACCEPTED) gained.push(same[row]);
  }
  const which = /** @type {HTMLSelectElement} */ (byId("which"));
  const show = () => showScores(a, b, which.value === "accepted" ? [inA.status, inB.status] : null);
  // The same clips judged by other rules have the same scores: what differs is what is kept.
  if (shared === a.facts.rows && shared === b.facts.rows) which.value = "accepted";
  which.addEventListener("change", show);
  show();
  byId("changed").textContent = grouped(changed);
  byId("shared").textContent = `of ${grouped(shared)} in both; ${grouped(a.facts.rows - shared)} only in A, ${grouped(b.facts.rows - shared)} only in B`;
  const cards = new Cards(b, judges[1]);
  await cards.look();
  byId("panes").replaceChildren(
    paneOf(cards, inB, `accepted in B alone (${grouped(gained.length)})`, gained.slice(0, 2 * SHOWN)),
    paneOf(cards, inB, `accepted in A alone (${grouped(lost.length)})`, lost.slice(0, 2 * SHOWN)),
  );
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  document.documentElement.dataset.ready = "no";
  byId("trouble").hidden = false;
  byId("trouble").textContent = `This page cannot show its data: ${error.message}. It needs a browser of 2023 or later.`;
  throw error;
});
