// Tests of the page's arithmetic, without a browser. Run with `npm test`.
import assert from "node:assert/strict";
import test from "node:test";
import { build } from "esbuild";

async function load(file) {
  const { outputFiles: [{ text }] } = await build({ entryPoints: [file], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`);
}

const bar = await load("src/bar.ts");
const frames = await load("src/frames.ts");
const keys = await load("src/keys.ts");
const clock = await load("src/now.ts");
const segments = await load("src/segments.ts");
const steady = await load("src/steady.ts");
const time = await load("src/time.ts");
const words = await load("src/words.ts");
const iso = (ms) => new Date(ms).toISOString();

test("zooming keeps the instant under the pointer, between a minute and 30 days", () => {
  const view = { from: 0, to: 3_600_000 };
  const near = bar.zoomed(view, 0.5, 900_000);
  assert.equal(bar.share(near, 900_000), bar.share(view, 900_000));
  const [closest, widest] = [bar.zoomed(view, 1e-9, 0), bar.zoomed(view, 1e9, 0)];
  assert.deepEqual([closest.to - closest.from, widest.to - widest.from], [60_000, 30 * 86_400_000]);
});

test("zooming by key or button stays at what is seen, though the picture is elsewhere", () => {
  const view = { from: 0, to: 1000 * 60_000 };
  assert.deepEqual(bar.zoomedAt(view, 0.5, 0), { from: 0, to: 500 * 60_000 });
  assert.deepEqual(bar.zoomedAt(view, 0.5, 5000 * 60_000), { from: 250 * 60_000, to: 750 * 60_000 });
});

test("who goes on does so to the present, and with a clock that is ahead to the end of what it stored", () => {
  const stored = (to) => ({ ranges: [{ from: iso(0), to: iso(to) }], gaps: [], pending: [] });
  assert.equal(bar.newest([stored(5000)], 60_000), 60_000);
  assert.equal(bar.newest([stored(5000), stored(7_200_000)], 60_000), 7_200_000);
  assert.equal(bar.newest([], 60_000), 60_000);
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

test("no picture is asked for where nothing is stored, and few during a drag", () => {
  const timeline = { ranges: [{ from: iso(1500), to: iso(9000) }], gaps: [{ from: iso(9000), to: iso(20_000), reason: "not-stored" }], pending: [{ from: iso(15_000), to: iso(30_000) }] };
  assert.deepEqual([0, 1499, 1500, 2100, 3999, 8999, 9000, 16_000, 40_000].map((at) => bar.instantOfPicture(timeline, at)), [undefined, undefined, 1500, 2000, 2000, 8000, undefined, undefined, undefined]);
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

test("a day begins when it does where the clock is changed at midnight", () => {
  for (const [zone, day, begins] of [["America/Santiago", "2026-09-06", "04:00"], ["Atlantic/Azores", "2026-03-29", "01:00"], ["America/Havana", "2026-03-08", "05:00"], ["America/Havana", "2026-11-01", "04:00"], ["America/Santiago", "2026-04-05", "04:00"]]) {
    time.setZone(zone);
    assert.equal(iso(time.dayBegins(day)), `${day}T${begins}:00.000Z`, zone);
    assert.equal(time.dayOf(time.dayBegins(day)), day);
  }
  time.setZone(undefined);
});

test("the axis marks midnights as days, also after the clock was changed", () => {
  time.setZone("Europe/Berlin");
  const HOUR = 3_600_000;
  const local = (at) => new Intl.DateTimeFormat("en", { timeZone: "Europe/Berlin", hourCycle: "h23", hour: "2-digit", minute: "2-digit" }).format(at);
  for (const change of ["2026-10-25", "2026-03-29"]) {
    const from = time.dayBegins(change) - 72 * HOUR;
    for (const days of [1, 2, 5, 10]) {
      const all = time.marks(from, from + 30 * 24 * HOUR, days * 24 * HOUR);
      assert.ok(all.length >= 3 && all.every((at) => local(at) === "00:00"), `${change}: ${all.map(local)}`);
      assert.deepEqual(time.marks(from + HOUR, from + 30 * 24 * HOUR, days * 24 * HOUR), all.filter((at) => at > from), "they stay while the bar moves");
    }
    const hours = time.marks(from, from + 5 * 24 * HOUR, 6 * HOUR);
    for (let day = time.dayOf(from); time.dayBegins(day) <= from + 5 * 24 * HOUR; day = time.dayAfter(day)) assert.ok(hours.includes(time.dayBegins(day)), `${day}: ${hours.map(local)}`);
    for (const [index, at] of hours.slice(1).entries()) assert.ok(at - hours[index] >= 3 * HOUR, "marks are too near");
  }
  const minute = time.marks(Date.UTC(2026, 10, 28, 12, 0, 2), Date.UTC(2026, 10, 28, 12, 1, 2), 10_000);
  assert.deepEqual(minute.map((at) => (at / 1000) % 60), [10, 20, 30, 40, 50, 0]);
  time.setZone(undefined);
});

test("the time bar follows the picture, but not one that was out of it, and not away from what the hand chose", () => {
  const view = { from: 0, to: 1000 };
  assert.deepEqual(bar.carried(view, 500, 600, false), view);
  assert.equal(bar.carried(view, 940, 980, false).from, 780, "it makes room ahead");
  assert.deepEqual(bar.carried(view, 940, 980, true), view, "what the hand chose stays");
  assert.notDeepEqual(bar.carried(view, 990, 1010, true), view, "until the picture leaves it");
  assert.deepEqual(bar.carried(view, 5000, 5010, false), view);
  assert.deepEqual(bar.carried(view, undefined, 5010, false), { from: 4810, to: 5810 });
  assert.deepEqual(bar.carried(view, undefined, 5010, true), view);
});

test("what follows an instant is the next recording, not a rounding of the last one", () => {
  const timeline = { ranges: [{ from: iso(0), to: iso(10_001) }, { from: iso(60_000), to: iso(90_000) }], gaps: [{ from: iso(10_001), to: iso(60_000), reason: "stalled" }], pending: [] };
  assert.deepEqual(bar.nextStored(timeline, 10_000, false), { at: 10_000, until: 60_000, reason: "stalled" });
  assert.equal(bar.nextStored(timeline, 5000, false).until, 5000, "the same one goes on");
  assert.equal(bar.nextStored(timeline, 5000, true).until, 60_000);
  assert.equal(bar.nextStored(timeline, 89_900, false), undefined);
  assert.equal(bar.gapOver(timeline, 100_000), undefined);
  assert.equal(bar.gapOver({ ...timeline, gaps: [{ from: iso(90_000), to: iso(100_000), reason: "stalled" }] }, 100_000).reason, "stalled");
});

test("a gap begins where it begins, not where the loaded time does", () => {
  const timeline = { ranges: [], gaps: [{ from: iso(1000), to: iso(5000), reason: "stalled" }, { from: iso(20_000), to: iso(30_000), reason: "stalled" }], pending: [] };
  assert.equal(bar.gapFrom(timeline, 50_000, -1, 1000), 20_000);
  assert.equal(bar.gapFrom(timeline, 21_000, -1, 1000), undefined);
  assert.equal(bar.gapFrom(timeline, 21_000, -1), 1000);
});

test("nothing before 1970 is asked for", () => {
  for (const view of [{ from: -3_600_000, to: 20_000 }, { from: -7_200_000, to: -3_600_000 }, { from: 0, to: 60_000 }]) {
    const { from, to } = bar.asked(view);
    assert.ok(from >= 0 && to > from, `${from} ${to}`);
  }
});

test("a frame is as long as most are, though some were left out and few came early", () => {
  assert.equal(frames.frameLength([]), 0.04);
  assert.equal(frames.frameLength([0.02, 0.04, 0.02, 0.02, 0.06, 0.02]), 0.02);
  assert.equal(frames.frameLength([0.001, 0.083, 0.084, 0.083, 0.166, 0.083, 0.083, 0.084]), 0.083);
});

test("codecs have the names that people know", () => {
  assert.equal(words.codecs(["hvc1.1.6.L93.B0"]), "H.265 video");
  assert.equal(words.codecs(["hev1.2.4.L120.90", "alaw"]), "H.265 video and sound as G.711 A-law");
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
  // At 7.999 s only sound is left of the first range, so there is no picture.
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

test("after a clock was set back an instant is found where it was recorded, not in what the playlist has first", () => {
  const at = (text) => Date.parse(`2026-11-22T${text}Z`);
  // Ten chunks from 14:00 on, then the clock is set back by half an hour. The playlist is in the order of recording.
  const run = (begins, start) => Array.from({ length: 10 }, (_, index) => ({ start: start + index * 10, duration: 10, at: begins + index * 10_000 }));
  const list = [...run(at("14:00:00"), 0), ...run(at("13:31:40"), 100)];
  const found = (text) => segments.segmentAt(list, at(text))?.start;
  assert.equal(found("13:32:00"), 120);
  assert.equal(found("13:32:09.999"), 120);
  assert.equal(found("14:00:15"), 10);
  // In a gap, the segment that begins next by the camera's clock.
  assert.equal(found("13:00:00"), 100);
  assert.equal(found("13:50:00"), 0);
  assert.equal(found("14:01:40"), undefined);
  assert.equal(segments.latestEnd(list), at("14:01:40"));
  assert.equal(segments.latestEnd([]), undefined);
});

test("an address asks for an instant between 1970 and 2554, whatever it says, and its days and marks have an end", () => {
  assert.equal(time.askedFor("2026-11-22T14:00:00 01:00"), Date.UTC(2026, 10, 22, 13));
  assert.equal(time.askedFor(""), null);
  assert.equal(time.askedFor("0001-01-01T00:00:00Z"), 0);
  for (const text of ["9999-12-31T23:59:59Z", "+275760-09-13T00:00:00Z"]) {
    const at = time.askedFor(text);
    assert.equal(iso(at), "2554-01-01T00:00:00.000Z");
    assert.ok(time.marks(at - 30 * 86_400_000, at + 30 * 86_400_000, 86_400_000).length > 50);
  }
});

test("a zone that the browser does not know leaves times in the browser's, and is named", () => {
  const own = time.zone();
  for (const name of ["localtime", "posixrules", "Factory", "Mars/Base"]) {
    time.setZone(name);
    assert.equal(time.zone(), own);
    assert.equal(time.unknownZone(), name);
    assert.ok(time.clock(0).length > 0);
  }
  time.setZone("Asia/Tokyo");
  assert.deepEqual([time.zone(), time.unknownZone(), time.clock(0)], ["Asia/Tokyo", undefined, "09:00:00"]);
  time.setZone(undefined);
  assert.deepEqual([time.zone(), time.unknownZone()], [own, undefined]);
});

test("the present is the server's, and a clock that fits an answer is left alone", () => {
  const device = Date.now();
  const off = () => clock.now() - Date.now();
  const date = (at) => new Date(at).toUTCString();
  const near = (wanted) => assert.ok(Math.abs(off() - wanted) < 1100, `${off()} ms instead of ${wanted}`);
  clock.learn(null, device, device);
  clock.learn("nonsense", device, device);
  clock.learn(date(device), device, device);
  near(0);
  // The server may have written the `Date` at any moment of the eleven seconds, so the offset fits.
  clock.learn(date(device + 5000), device, device + 11_000);
  near(0);
  clock.learn(date(device - 180_000), device, device);
  near(-180_000);
  const known = off();
  clock.learn(date(device - 176_000), device, device + 11_000);
  assert.ok(Math.abs(off() - known) < 50, "what fits changes nothing");
  clock.learn(date(device + 3_600_000), device, device);
  near(3_600_000);
});

test("a key is what it means, by Option and AltGr, with Caps Lock, and in other scripts", () => {
  const meant = (key, code, held = [], states = []) => keys.meant({ key, code, ctrlKey: held.includes("ctrl"), altKey: held.includes("alt"), metaKey: held.includes("meta"), getModifierState: (name) => states.includes(name) });
  assert.equal(meant("k", "KeyK"), "k");
  assert.equal(meant("K", "KeyK"), "k");
  assert.equal(meant("л", "KeyK"), "k");
  assert.equal(meant("х", "BracketLeft"), "[");
  assert.equal(meant("]", "Digit6", ["alt"]), "]", "Option on a German Mac");
  assert.equal(meant("[", "Digit8", ["ctrl", "alt"], ["AltGraph"]), "[", "AltGr");
  assert.equal(meant("ArrowLeft", "ArrowLeft"), "ArrowLeft");
  assert.equal(meant(" ", "Space"), " ");
  for (const [key, code, held] of [["]", "BracketRight", ["meta"]], ["[", "BracketLeft", ["ctrl"]], ["k", "KeyK", ["alt"]], ["ArrowLeft", "ArrowLeft", ["alt"]], ["p", "KeyP", ["ctrl"]]]) assert.equal(meant(key, code, held), undefined, `${held} ${key}`);
});

test("reasons and codecs that are called as what every object has are words as any other", () => {
  for (const name of ["constructor", "toString", "__proto__"]) {
    assert.equal(words.reason(name), name);
    assert.equal(words.codecs([name]), `What is coded as ${name}`);
  }
});

test("dates and months are those of the calendar that days are counted in, whatever the browser's own is", () => {
  const { DateTimeFormat } = Intl;
  try {
    for (const [locale, year] of [["fa-IR-u-nu-latn", /2026/], ["th-TH", /2026/], ["ar-SA-u-nu-latn", /2026/]]) {
      Intl.DateTimeFormat = class extends DateTimeFormat {
        constructor(given, options) {
          super(given ?? locale, options);
        }
      };
      time.setZone("UTC");
      assert.match(time.date(Date.UTC(2026, 10, 30)), year, locale);
      assert.match(time.monthName("2026-11", true), year, locale);
      assert.equal(time.monthName("2026-11", false), new DateTimeFormat(locale, { calendar: "gregory", month: "long" }).format(Date.UTC(2026, 10, 15)), locale);
      time.setZone(undefined);
    }
  } finally {
    Intl.DateTimeFormat = DateTimeFormat;
  }
});

test("a timeline's times are read once, and the newest of very many is found", () => {
  const gaps = Array.from({ length: 200_000 }, (_, index) => ({ from: iso(index * 1000), to: iso(index * 1000 + 500), reason: "stalled" }));
  assert.equal(bar.parts(gaps), bar.parts(gaps));
  assert.deepEqual(bar.described({ ranges: [], gaps, pending: [] }, 199_999_100), { gap: "stalled", until: 199_999_500 });
  assert.equal(bar.newest([{ ranges: gaps, gaps: [], pending: [] }], 0), 199_999_500);
});
