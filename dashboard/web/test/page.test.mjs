// The page's arithmetic, without a browser: `npm test`.
import assert from "node:assert/strict";
import test from "node:test";
import { build } from "esbuild";

async function load(file) {
  const { outputFiles: [{ text }] } = await build({ entryPoints: [file], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`);
}

const bar = await load("src/bar.ts");
const steady = await load("src/steady.ts");
const time = await load("src/time.ts");
const iso = (ms) => new Date(ms).toISOString();

test("zooming keeps the instant under the pointer, between a minute and 30 days", () => {
  const view = { from: 0, to: 3_600_000 };
  const near = bar.zoomed(view, 0.5, 900_000);
  assert.equal(bar.share(near, 900_000), bar.share(view, 900_000));
  const [closest, widest] = [bar.zoomed(view, 1e-9, 0), bar.zoomed(view, 1e9, 0)];
  assert.deepEqual([closest.to - closest.from, widest.to - widest.from], [60_000, 30 * 86_400_000]);
});

test("the time bar is asked for whole at every length and place, never more than the server tells of, and not again when it moves a little", () => {
  const DAY = 86_400_000;
  const noon = Date.UTC(2026, 10, 28, 12);
  for (let length = 60_000; length <= 30 * DAY; length = length === 30 * DAY ? Infinity : Math.min(length * 1.13, 30 * DAY)) {
    for (let offset = 0; offset < 3; offset += 0.07) {
      const view = { from: noon + offset * length, to: noon + offset * length + length };
      const { from, to } = bar.asked(view);
      assert.ok(from <= view.from && to >= view.to, `${length / DAY} days at ${offset}: ${(view.from - from) / DAY} and ${(to - view.to) / DAY} days beside it`);
      assert.ok(to - from <= 31 * DAY, `${length / DAY} days: ${(to - from) / DAY}`);
    }
    const asked = Array.from({ length: 100 }, (_, step) => JSON.stringify(bar.asked(bar.moved({ from: noon, to: noon + length }, (step / 100) * Math.min(length, 31 * DAY - length) / 4))));
    assert.ok(new Set(asked).size <= 5, `${length / DAY} days: ${new Set(asked).size} questions`);
  }
});

test("an instant is recorded, waits for its upload, is missing, or nothing is known of it", () => {
  const timeline = { ranges: [{ from: iso(0), to: iso(10) }], gaps: [{ from: iso(10), to: iso(20), reason: "not-stored" }], pending: [{ from: iso(15), to: iso(30) }] };
  assert.deepEqual([5, 12, 17, 25, 40].map((at) => bar.described(timeline, at)), ["recorded", { gap: "not-stored", until: 20 }, "recorded, not yet uploaded", "recorded, not yet uploaded", "nothing known"]);
});

test("live is where every camera that records has a picture and the next one comes in time", () => {
  const now = 1_000_000_000;
  const at = (ages, chunk) => {
    const live = steady.liveAt(ages.map((age) => now - age), chunk, now);
    return live && [(now - live.at) / 1000, live.isLive];
  };
  assert.deepEqual(at([2000, 9000], 10_000), [21, true], "the slower one decides");
  assert.deepEqual(at([2000], 30_000), [34, true], "long chunks come rarely");
  assert.deepEqual(at([2000, 3_600_000], 10_000), [14, true], "one that records no more holds up nobody");
  assert.deepEqual(at([7_200_000, 3_600_000], 10_000), [3612, false], "none records: the end of what is stored");
  assert.equal(at([], 10_000), undefined);
});

test("days of 23 and 25 hours begin when they do", () => {
  time.setZone("Europe/Berlin");
  const hours = (day, next) => (time.dayBegins(next) - time.dayBegins(day)) / 3_600_000;
  assert.deepEqual([hours("2026-03-29", "2026-03-30"), hours("2026-10-25", "2026-10-26"), hours("2026-11-01", "2026-11-02")], [23, 25, 24]);
  time.setZone(undefined);
});

test("a picture that is off catches up, and jumps where that would take long", () => {
  assert.deepEqual(steady.steered(10, 10, 1, true), { rate: 1, play: true });
  const behind = steady.steered(9.8, 10, 1, true);
  assert.ok(behind.rate > 1 && behind.rate < 1.5 && behind.seek === undefined);
  assert.ok(steady.steered(10.2, 10, 1, true).rate < 1);
  assert.equal(steady.steered(5, 10, 1, true).seek, 10);
  for (const [speed, time] of [[0.5, 11], [16, 2], [16, 9.9]]) {
    const { rate } = steady.steered(time, 10, speed, true);
    assert.ok(rate >= 0.0625 && rate <= 16, `${rate}`);
  }
  assert.deepEqual(steady.steered(10, 10, 2, false), { rate: 2, play: false });
});

test("a seek into the hole in front of a gap's first picture goes on behind it, unless that is too far", () => {
  const near = (to, wanted) => assert.ok(Math.abs(to - wanted) < 0.02, `${to}`);
  near(steady.behindHole(8, [[4, 7.5], [8.16, 16]]), 8.16);
  // The sound's last milliseconds are no picture.
  near(steady.behindHole(7.999, [[4.08, 8.021], [8.16, 16]]), 8.16);
  for (const buffered of [[], [[4, 16]], [[4, 7.5], [8.3, 16]]]) assert.equal(steady.behindHole(8, buffered), undefined);
});

test("the clock waits for a picture that is late, not for a gap, and not for ever", () => {
  assert.equal(steady.isAwaited("stored", 0, 1, 0), false);
  assert.equal(steady.isAwaited("stored", -900, 1, 100), true);
  assert.equal(steady.isAwaited("stored", undefined, 1, 100), true);
  assert.equal(steady.isAwaited("loading", undefined, 1, 100), true);
  for (const place of ["gap", "after"]) assert.equal(steady.isAwaited(place, undefined, 1, 100), false);
  assert.equal(steady.isAwaited("loading", undefined, 1, 60_000), false);
});
