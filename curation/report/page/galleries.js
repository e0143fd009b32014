// @ts-check
"use strict";
/* Which clips to look at: next to a threshold, the extremes of a score, by chance, of one reason, duplicates. */

/** @typedef {{title: string, rows: number[]}} Pane */

const SHOWN = 12;

/** The `count` rows for which a number is smallest; NaN is none. @param {number} rows @param {(row: number) => number} measure @param {number} count @returns {number[]} */
function smallest(rows, measure, count) {
  /** @type {[number, number][]} */
  const kept = [];
  for (let row = 0; row < rows; row++) {
    const value = measure(row);
    if (value !== value || !count || (kept.length === count && value >= kept[count - 1][0])) continue;
    let place = kept.length;
    while (place > 0 && kept[place - 1][0] > value) place--;
    kept.splice(place, 0, [value, row]);
    if (kept.length > count) kept.pop();
  }
  return kept.map(([, row]) => row);
}

/** A number in 0..1 that depends on the row alone: the same sample every time. @param {number} row @returns {number} */
function chance(row) {
  let mixed = (row + 0x9e3779b9) | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
}

/**
 * The clips of a view, in one or two panes.
 * @param {Output} output @param {string} view such as `border:motion` @param {Verdicts} verdicts by the rules as they stand
 * @param {Verdicts} original by the rules of the output @param {(row: number) => boolean} canShow @param {number[]} found by the search
 * @returns {Pane[]}
 */
function panesOf(output, view, verdicts, original, canShow, found) {
  const { rows } = output.facts;
  const [kind, ...rest] = view.split(":");
  const name = rest.join(":");
  const { status } = verdicts;
  const pick = (/** @type {(row: number) => number} */ measure, count = SHOWN) => smallest(rows, (row) => (canShow(row) ? measure(row) : NaN), count);
  const random = (/** @type {(row: number) => boolean} */ wanted, count = SHOWN) => smallest(rows, (row) => (wanted(row) && canShow(row) ? chance(row) : NaN), count);
  if (kind === "border") {
    const values = numbersOf(output, name);
    const rule = verdicts.rules.find((some) => some.column === name) ?? { min: null, max: null };
    /** @type {Pane[]} */
    const panes = [];
    for (const side of /** @type {("min"|"max")[]} */ (["min", "max"])) {
      const bound = rule[side];
      if (bound === null) continue;
      const inward = (/** @type {number} */ row) => (side === "min" ? values[row] - bound : bound - values[row]);
      const reason = verdicts.names.indexOf(`${name}:${side === "min" ? "low" : "high"}`);
      // Clips that this threshold decides come before those that are rejected anyway.
      const ordered = (/** @type {(row: number) => number} */ away, /** @type {(row: number) => boolean} */ isDecided) => {
        const decided = pick((row) => (isDecided(row) ? away(row) : NaN));
        return [...decided, ...pick((row) => (isDecided(row) ? NaN : away(row)), SHOWN - decided.length)];
      };
      panes.push({ title: `just inside ${side} ${shown(bound)}`, rows: ordered((row) => (inward(row) >= 0 ? inward(row) : NaN), (row) => status[row] === ACCEPTED) });
      panes.push({ title: `just outside ${side} ${shown(bound)}`, rows: ordered((row) => (inward(row) < 0 ? -inward(row) : NaN), (row) => verdicts.only[row] === reason) });
    }
    return panes.length ? panes : [{ title: `${name} has no threshold`, rows: random((row) => values[row] === values[row]) }];
  }
  if (kind === "ends") {
    const values = numbersOf(output, name);
    return [
      { title: `highest ${name}`, rows: pick((row) => -values[row]) },
      { title: `lowest ${name}`, rows: pick((row) => values[row]) },
    ];
  }
  if (kind === "changed") {
    return [
      { title: "kept now, dropped before", rows: random((row) => status[row] === ACCEPTED && original.status[row] !== ACCEPTED) },
      { title: "dropped now, kept before", rows: random((row) => status[row] !== ACCEPTED && original.status[row] === ACCEPTED) },
    ];
  }
  if (kind === "reason") {
    const place = verdicts.names.indexOf(name);
    return [{ title: `rejected first for ${name}`, rows: random((row) => verdicts.first[row] === place, 2 * SHOWN) }];
  }
  if (kind === "duplicates") {
    return output.facts.duplicates.slice(0, SHOWN).map(([row, kept]) => ({ title: "kept, and its duplicate", rows: [kept, row] }));
  }
  if (kind === "search") return [{ title: "found", rows: found.slice(0, 2 * SHOWN) }];
  if (kind === "failed") return [{ title: "failed", rows: smallest(rows, (row) => (status[row] === FAILED ? row : NaN), 2 * SHOWN) }];
  return [
    { title: "accepted, by chance", rows: random((row) => status[row] === ACCEPTED) },
    { title: "rejected, by chance", rows: random((row) => status[row] === 0) },
  ];
}
