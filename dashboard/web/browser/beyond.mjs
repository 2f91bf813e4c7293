// Beyond the loaded window: outages of hours, the end of the recordings, clocks of 1970. Also mouse and touch on the time bar.
import assert from "node:assert/strict";
import { join } from "node:path";
import { address, accessible, data, faults, pictures, screenshots, shown, state, tab, until, url } from "./tools.mjs";

const { cameras, outage } = data;
const start = cameras.find(({ id }) => id === "flv").start;
// The session before the outage is eight seconds long.
const before = start - outage;
const beside = (all, at) => `${address}/?${new URLSearchParams([...all.map((id) => ["cam", id]), ["t", new Date(at).toISOString()]])}`;
const plays = (page, what) => until(`${what} does not play`, () => state(page), ({ frames, paused, ready }) => frames > 2 && !paused && ready >= 2);
const number = async (page) => Math.round((await pictures(page))[0].seconds * 25);
const bounds = (page) => page.$eval(".bar", (bar) => ["aria-valuemin", "aria-valuemax"].map((name) => Number(bar.getAttribute(name)) * 1000));
/** Clears the 404s of playlists, which are the answer for a window without recordings. Fails if there are other faults, as 404s of previews. */
function forget404() {
  assert.deepEqual(faults.filter((fault) => !/404.*\/hls\//.test(fault)), []);
  faults.length = 0;
}

export { tests as beyond };
const tests = {
  async "an outage of hours is played over, and who goes into it gets what follows, with words"() {
    const page = await tab();
    const told = /nothing is recorded here; it goes on /;
    const why = /nothing is recorded here; it goes on [\d:]+(, .*)?: [a-z]/;
    for (const [what, from, to, words] of [["over the outage", before + 5000, start, why], ["in the outage", start - outage / 2, start, why], ["the midnight before", before - 10 * 3_600_000, before, told]]) {
      await page.goto(url("apart", from));
      await until(`${what}: it does not go on`, () => shown(page), (at) => at >= to - 100 && at < to + 15_000);
      assert.match(await page.textContent(".said"), words, what);
      await plays(page, what);
    }
    await page.screenshot({ path: join(screenshots, "outage.png"), fullPage: true });
    const [low, high] = await bounds(page);
    assert.ok(low < before && high > before, "the time bar shows it");
    forget404();
  },

  async "cameras on one clock go over an outage of all of them, and say how long it is"() {
    const page = await tab();
    for (const from of [before + 5000, start - outage / 2]) {
      await page.goto(beside(["apart", "apart/too"], from));
      await until("they do not go on", () => shown(page), (at) => at >= start - 100);
      assert.match(await page.textContent(".when"), /nothing is recorded here; it goes on .*: \w/);
      await until("they do not play", () => pictures(page), (all) => all.every(({ seconds, paused }) => seconds !== null && !paused));
    }
    await page.keyboard.press("k");
    await page.goBack();
    await page.goto(beside(["apart", "flv"], start - outage / 2));
    await until("the words are not there", () => pictures(page), ([first]) => /nothing is recorded until|^$/.test(first.words));
    forget404();
  },

  async "a request that fails at the end of a session is told, and made again"() {
    const page = await tab();
    let asked = 0;
    await page.route("**/api/timeline**", (route) => {
      // The requests of the time bar begin earlier: let them through.
      const from = Date.parse(new URL(route.request().url()).searchParams.get("from"));
      if (Math.abs(from - before - 8000) > 1500) return route.continue();
      asked++;
      return asked === 1 ? route.fulfill({ status: 503, json: { error: "the bucket is busy", hint: "" } }) : route.continue();
    });
    await page.goto(url("apart", before + 5000));
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("the bucket is busy; it is tried again"));
    await until("it does not go on", () => shown(page), (at) => at >= start - 100);
    assert.deepEqual(faults.filter((fault) => !fault.includes("503")), []);
    faults.length = 0;
  },

  async "the end of what is stored is told once, and its last piece is not played again"() {
    const page = await tab();
    let playlists = 0;
    page.on("request", (request) => request.url().includes("/hls/") && playlists++);
    await page.goto(url("rounded", start + 500));
    await until("the end is not told", () => page.textContent(".screen"), (text) => text.includes("nothing is stored after this"));
    const { time } = await state(page);
    await page.waitForTimeout(2500);
    assert.equal((await state(page)).time, time);
    assert.match(await page.textContent(".screen"), /nothing is stored after this/);
    // Pressing play there does not restart the window either.
    await page.keyboard.press("k");
    await page.waitForTimeout(1000);
    assert.equal((await state(page)).time, time);
    assert.equal(playlists, 1);
  },

  async "the previous gap is found hours away, by one window, with the chosen speed, and its own words if there is none"() {
    const page = await tab();
    let playlists = 0;
    page.on("request", (request) => request.url().includes("/hls/") && playlists++);
    await page.goto(url("apart", start + 1000));
    await plays(page, "apart");
    await page.selectOption(".controls select", "4");
    await page.locator(".controls select").first().focus();
    playlists = 0;
    await page.keyboard.press("p");
    await until("p does not go to the gap", () => shown(page), (at) => at >= before + 2500 && at < before + 9000);
    await until("it is slow", () => page.$eval("video[aria-label]", ({ playbackRate, paused, readyState }) => ({ playbackRate, paused, readyState })), ({ playbackRate, paused, readyState }) => playbackRate === 4 && !paused && readyState >= 2);
    assert.equal(playlists, 1);
    await page.click("button:has-text('Live')");
    await until("Live is not at its speed", () => page.$eval("video[aria-label]", ({ playbackRate }) => playbackRate), (rate) => rate === 1);
    assert.equal(await page.locator(".controls select").first().inputValue(), "1");
    await page.goto(url("flv", start + 3000));
    await plays(page, "flv");
    await page.keyboard.press("p");
    await until("nothing is said", () => page.textContent(".screen"), (text) => text.includes("no gap in the month before this"));
  },

  async "each press of a frame key is one frame, at 12 and at 50 frames a second"() {
    for (const camera of ["twelve", "fifty"]) {
      const page = await tab();
      await page.goto(url(camera, start + 500));
      await until("it does not start", () => shown(page), (at) => at > start + 2500);
      await page.keyboard.press("k");
      await until("k does not pause", () => state(page), ({ paused }) => paused);
      const painted = await number(page);
      // Right after a pause, the picture read here may differ from the screen's by a frame. From the first step on both are the same.
      await page.keyboard.press(".");
      await until("the first step does not end", () => page.$eval("video[aria-label]", (video) => !video.seeking && video.readyState >= 2), (is) => is);
      const first = await number(page);
      assert.ok(Math.abs(first - painted) <= 4, `${camera}: from ${painted} to ${first}`);
      for (let press = 0; press < 10; press++) await page.keyboard.press(".");
      await until(`${camera}: ten frames on from ${first}`, () => number(page), (now) => now === first + 10);
      for (let press = 0; press < 4; press++) {
        await page.keyboard.press(",");
        await until(`${camera}: ${press + 1} frames back from ${first + 10}`, () => number(page), (now) => now === first + 9 - press);
      }
      await page.context().close();
    }
  },

  async "keys work after a box was ticked, and the space bar ticks it"() {
    const page = await tab();
    await page.goto(url("flv", start + 1000));
    await plays(page, "flv");
    await page.locator(".when input").click();
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    assert.equal(await page.$eval("video[aria-label]", ({ ended }) => ended), false, "it played to its end");
    assert.equal(await page.isChecked(".when input"), true);
    await page.keyboard.press(" ");
    assert.equal(await page.isChecked(".when input"), false);
    assert.equal((await state(page)).paused, true);
  },

  async "two fingers on the time bar zoom, and the picture goes on"() {
    const page = await tab();
    await page.goto(url("flv", start + 1000));
    await plays(page, "flv");
    const box = await page.locator(".bar").boundingBox();
    const client = await page.context().newCDPSession(page);
    const touch = (type, ...all) => client.send("Input.dispatchTouchEvent", { type, touchPoints: all.map((share, id) => ({ id, x: box.x + box.width * share, y: box.y + 30 })) });
    const [low, high] = await bounds(page);
    await touch("touchStart", 0.4);
    await touch("touchStart", 0.4, 0.6);
    for (const by of [0.02, 0.06, 0.1]) await touch("touchMove", 0.4 - by, 0.6 + by);
    await touch("touchEnd", 0.3);
    await touch("touchEnd");
    await until("it does not zoom", () => bounds(page), ([from, to]) => to - from < (high - low) * 0.8);
    assert.equal(await page.$(".peek"), null, "a still picture covers the video");
    const at = await shown(page);
    await until("the clock stands", () => shown(page), (now) => now > at + 500 && now < at + 20_000);
    // A touch that the browser cancels, as to scroll, picks no instant.
    await touch("touchStart", 0.2);
    await page.waitForSelector(".peek");
    await touch("touchCancel");
    await until("a picture stays", () => page.$$(".peek"), (all) => all.length === 0);
    assert.ok((await shown(page)) >= start, "nothing was chosen");
    forget404();
  },

  async "while it plays the time bar stays where the wheel left it, and a click goes to what is under the pointer"() {
    for (const [name, to] of [["alone", url("flv", start + 1000)], ["beside others", beside(["flv", "site/ts"], start + 1000)]]) {
      const page = await tab();
      await page.goto(to);
      await until(`${name}: it does not play`, () => pictures(page), (all) => all.every(({ seconds, paused }) => seconds !== null && !paused));
      const box = await page.locator(".bar").boundingBox();
      const x = box.x + box.width * 0.2;
      await page.mouse.move(x, box.y + 30);
      for (let turn = 0; turn < 12; turn++) {
        await page.mouse.wheel(0, 240);
        await page.mouse.wheel(0, -480);
      }
      const seen = await until(`${name}: it does not zoom`, () => bounds(page), ([from, to]) => to - from <= 61_000);
      const at = await shown(page);
      await until("the clock stands", () => shown(page), (now) => now > at + 600);
      const [from, end] = await bounds(page);
      assert.deepEqual([from, end], seen, `${name}: the bar moved`);
      const wanted = from + (end - from) * 0.2;
      assert.ok(wanted < start - 60_000, "it is far from the picture");
      const asked = () => Date.parse(new URL(page.url()).searchParams.get("t"));
      await page.mouse.click(x, box.y + 30);
      await until(`${name}: the click goes elsewhere`, asked, (t) => Math.abs(t - wanted) < 1500);
      await page.context().close();
      forget404();
    }
  },

  async "a camera whose clock began in 1970 is watched"() {
    const page = await tab();
    await page.goto(`${address}/?${new URLSearchParams({ cam: "early" })}`);
    await plays(page, "early");
    await until("its time is not shown", () => shown(page), (at) => at >= 20_000 && at <= 28_100);
    for (let step = 0; step < 4; step++) await page.keyboard.press("-");
    await until("the time bar is empty", () => page.getAttribute(".bar", "aria-valuetext"), (text) => /recorded/.test(text));
    assert.deepEqual(faults, []);
    await page.goto(beside(["early", "flv"], 22_000));
    await until("it does not play beside others", () => pictures(page), ([early]) => early.seconds !== null && early.words === "");
    forget404();
  },

  async "another month shows no days of the one before"() {
    const page = await tab();
    const months = [];
    await page.route("**/api/days**", async (route) => {
      months.push(new URL(route.request().url()).searchParams.get("month"));
      if (months.length > 1) return;
      return route.continue();
    });
    await page.goto(url("flv", start + 1000));
    await page.click("summary:has-text('Calendar')");
    await page.waitForSelector(".days button");
    await page.click("[aria-label='Previous month']");
    await until("the month is not asked for", () => months.length, (count) => count > 1);
    assert.notEqual(months[0], months[1]);
    assert.deepEqual(await page.$$(".days button"), []);
  },

  async "what the browser cannot decode is said by its name, alone and beside others"() {
    const page = await tab();
    await page.goto(url("hevc", start + 1000));
    await until("it is not said", () => page.textContent(".screen"), (text) => /H\.265 video does not play in this browser/.test(text));
    await page.click("button:has-text('Save picture')");
    await until("an empty picture is saved", () => page.textContent(".screen"), (text) => text.includes("there is no picture yet"));
    await page.goto(beside(["hevc", "telephone", "flv"], start + 1000));
    await until("it is not said beside others", () => pictures(page), ([hevc, , flv]) => /H\.265 video does not play in this browser/.test(hevc.words) && flv.seconds !== null);
    await page.waitForSelector("figure:nth-of-type(2) [role=note]:has-text('Sound as G.711 A-law')");
    const at = await shown(page);
    await until("the others wait", () => shown(page), (now) => now > at + 1000);
    await accessible(page, "beside what cannot be decoded");
    await page.screenshot({ path: join(screenshots, "undecodable.png"), fullPage: true });
  },

  async "a camera whose reports are old shows how old its newest recording is"() {
    const page = await tab();
    const reasons = { flv: "the last report is older than three of its intervals", holed: "nothing stored since 2026-11-28T10:00:00.000Z" };
    const changed = (all) => all.map((camera) => ({ ...camera, badge: "unknown", age_s: 100, reason: reasons[camera.id] ?? "" }));
    await page.route("**/api/events", (route) => route.fulfill({ status: 200, contentType: "text/event-stream", body: ":\n\n" }));
    await page.route("**/api/cameras", async (route) => route.fulfill({ json: changed(await (await route.fetch()).json()) }));
    await page.goto(address);
    const card = (name) => page.locator(`.card:has(.name:text-is("${name}"))`).textContent();
    assert.match(await card("flv"), /stored up to 1 min 40 s ago/);
    assert.doesNotMatch(await card("holed"), /stored up to/, "the reason says it");
    assert.match(await card("holed"), /nothing stored for 1 min 40 s/);
  },

  async "the first screen says when no news come, asks for the gaps again, and asks for nothing while it is hidden"() {
    const page = await tab();
    await page.clock.install();
    await page.addInitScript(() => {
      // Record requests in the page: on the network one may arrive after the page is hidden.
      globalThis.asked = [];
      const { fetch } = globalThis;
      globalThis.fetch = (what, ...rest) => {
        asked.push(new URL(what, location.href).pathname);
        return fetch(what, ...rest);
      };
      // Event streams that stay open and send nothing.
      globalThis.open_streams = 0;
      globalThis.EventSource = class extends EventTarget {
        constructor() {
          super();
          globalThis.open_streams++;
          this.readyState = 1;
        }
        close() {
          globalThis.open_streams--;
        }
      };
    });
    let isAway = false;
    await page.route("**/api/**", (route) => (isAway ? route.abort() : route.continue()));
    const count = (path) => page.evaluate((path) => globalThis.asked.filter((one) => one === path).length, path);
    await page.goto(address);
    await page.waitForSelector(".card");
    await page.waitForSelector(".happened table");
    assert.deepEqual([await count("/api/cameras"), await count("/api/gaps")], [1, 1]);
    await page.clock.runFor(40_000);
    await until("the board is not asked for", () => count("/api/cameras"), (times) => times > 1);
    await until("there is no trouble", () => page.$$("[role=alert]"), (all) => all.length === 0);
    isAway = true;
    await page.clock.runFor(60_000);
    await page.waitForSelector("[role=alert]:has-text('No news since')");
    assert.equal((await page.$$("[role=alert]")).length, 1, "it is told once");
    await accessible(page, "no news");
    isAway = false;
    await page.clock.runFor(20_000);
    await until("the trouble does not go", () => page.$$("[role=alert]"), (all) => all.length === 0);
    await page.clock.runFor(300_000);
    await until("the gaps are not asked for again", () => count("/api/gaps"), (times) => times > 1);
    const hide = (isHidden) =>
      page.evaluate((value) => {
        Object.defineProperty(document, "hidden", { value, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
        return globalThis.open_streams;
      }, isHidden);
    assert.equal(await hide(true), 0);
    const quiet = await count("/api/cameras");
    await page.clock.runFor(120_000);
    assert.equal(await count("/api/cameras"), quiet);
    assert.equal(await hide(false), 1);
    await until("who looks again waits", () => count("/api/cameras"), (times) => times > quiet);
    assert.deepEqual(faults.filter((fault) => !/ERR_FAILED/.test(fault)), []);
    faults.length = 0;
  },
};
