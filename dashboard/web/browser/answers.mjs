// Answers that are late, wrong, or from another server; and what the page keeps meanwhile.
import assert from "node:assert/strict";
import { join } from "node:path";
import { accessible, address, data, faults, screenshots, shown, state, tab, until, url } from "./tools.mjs";

const { start, seconds } = data.cameras.find(({ id }) => id === "flv");
const plays = (page, what) => until(`${what} does not play`, () => state(page), ({ frames, paused, ready }) => frames > 2 && !paused && ready >= 2);
const text = (page) => page.textContent("main");
const inAddress = (page) => Date.parse(new URL(page.url()).searchParams.get("t"));
/** Clears the faults that a test caused on purpose. Fails if there are others. */
function forget(made) {
  assert.deepEqual(faults.filter((fault) => !made.test(fault)), []);
  faults.length = 0;
}
const refused = { status: 401, headers: { "www-authenticate": "Bearer" }, json: { error: "this dashboard asks for a token", hint: "" } };

/** Replaces EventSource, so that the test sends the events, and fetch, so that answers take as long as the test sets, by the page's clock. */
const scripted = () => {
  globalThis.EventSource = class extends EventTarget {
    constructor() {
      super();
      globalThis.say = (name, data) => this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
    }
    close() {}
  };
  AbortSignal.timeout = (ms) => {
    const stop = new AbortController();
    setTimeout(() => stop.abort(new DOMException("too late", "TimeoutError")), ms);
    return stop.signal;
  };
  const { fetch } = globalThis;
  globalThis.fetch = (what, how = {}) => {
    const delay = globalThis.silent?.[new URL(what, location.href).pathname];
    if (!delay) return fetch(what, how);
    return new Promise((done, fail) => {
      how.signal?.addEventListener("abort", () => fail(how.signal.reason));
      if (delay < Infinity) setTimeout(() => done(Response.json({ error: "no answer within 10 s", hint: "check the network" }, { status: 502 })), delay);
    });
  };
};

/** How far the viewer's clock is ahead of the server's, ms. */
const AHEAD = 600_000;

export { tests as answers };
const tests = {
  async "a bucket that does not answer is told on the first screen, and so is a dashboard that does not"() {
    const page = await tab();
    await page.clock.install();
    await page.addInitScript(scripted);
    await page.addInitScript(() => (globalThis.silent = { "/api/cameras": 11_000 }));
    await page.goto(address);
    await page.waitForSelector("main:has-text('Looking into the bucket')");
    await page.clock.runFor(12_000);
    await until("the answer is not waited for", () => text(page), (now) => now.includes("no answer within 10 s") && now.includes("check the network"));
    await page.evaluate(() => globalThis.say("trouble", { error: "it is refused", hint: "give it a role" }));
    await until("the event is not told", () => text(page), (now) => now.includes("it is refused") && now.includes("give it a role"));
    await page.evaluate(() => (globalThis.silent = { "/api/cameras": Infinity }));
    await page.clock.runFor(60_000);
    await until("a dashboard that hangs is not told", () => text(page), (now) => now.includes("the dashboard has not answered for 15 s") && /No news since [\d:]+\. /.test(now));
    await accessible(page, "silence");
    await page.screenshot({ path: join(screenshots, "silence.png") });
    await page.evaluate(() => (globalThis.silent = {}));
    await page.clock.runFor(60_000);
    await page.waitForSelector(".card");
    await until("the trouble does not go", () => page.$$("[role=alert]"), (all) => all.length === 0);
    // Trouble events alone bring no cameras: the page must say how old the shown ones are.
    await page.evaluate(() => (globalThis.silent = { "/api/cameras": Infinity }));
    for (let turn = 0; turn < 4; turn++) {
      await page.evaluate(() => globalThis.say("trouble", { error: "it is refused", hint: "give it a role" }));
      await page.clock.runFor(10_000);
    }
    await until("it is not told how old it is", () => text(page), (now) => now.includes("it is refused") && /No news since [\d:]+: what is shown/.test(now));
    assert.ok((await page.$$(".card")).length > 0);
    forget(/never/);
  },

  async "what is recorded is asked for once while the answer takes long, and shown when it comes"() {
    const page = await tab();
    await page.clock.install();
    const waiting = [];
    await page.route("**/api/timeline*", (route) => waiting.push(route));
    await page.goto(url("flv", start + 1000));
    for (let step = 0; step < 3; step++) await page.keyboard.press("-");
    // On a slow machine the view before the keys is asked for, too.
    const rests = async () => {
      const before = waiting.length;
      await page.clock.runFor(1000);
      return before > 0 && waiting.length === before;
    };
    await until("it is not asked for", rests, (it) => it);
    const many = waiting.length;
    await page.clock.runFor(40_000);
    await until("it is not said that it is loaded", () => text(page), (now) => now.includes("loading…"));
    assert.equal(waiting.length, many, "it is asked for again");
    const range = { from: new Date(start).toISOString(), to: new Date(start + seconds * 1000).toISOString() };
    await waiting.at(-1).fulfill({ json: { ranges: [range], gaps: [], pending: [] } });
    await until("it is not shown", () => page.getAttribute(".bar", "aria-valuetext"), (now) => /, recorded$/.test(now));
    await until("it is still said to be loaded", () => text(page), (now) => !now.includes("loading…"));
    await until("what is new is not asked for", () => waiting.length, (now) => now === many + 1);
    forget(/never/);
  },

  async "a card's picture that takes long is shown, though newer ones come"() {
    const page = await tab();
    await page.addInitScript(scripted);
    const asked = [];
    const [camera] = (await (await fetch(`${address}/api/cameras`)).json()).filter(({ id }) => id === "flv");
    const board = (later) => [{ ...camera, last_stored: new Date(start + 6000 + later).toISOString() }];
    await page.route("**/api/cameras", (route) => route.fulfill({ json: board(0) }));
    await page.route("**/preview?*", async (route) => {
      asked.push(new URL(route.request().url()).searchParams.get("t"));
      if (asked.length > 1) await new Promise((done) => setTimeout(done, 1500));
      return route.continue().catch(() => {});
    });
    await page.goto(address);
    const visible = () => page.$$eval(".picture video:not(.coming)", (all) => all.filter(({ readyState }) => readyState >= 2).length);
    await until("the first picture does not come", visible, (many) => many === 1);
    for (let turn = 1; turn <= 4; turn++) {
      await page.evaluate((all) => globalThis.say("cameras", all), board(turn * 2000));
      await page.waitForTimeout(200);
      assert.equal(await visible(), 1, "the picture before does not stay");
    }
    assert.equal(asked.length, 2, "each chunk asks for one, though none has come");
    await until("the newest is not asked for afterwards", () => asked, (all) => all.length === 3 && Date.parse(all[2]) === start + 13_000);
    await until("it is not shown", () => page.$$eval(".picture video", (all) => all.map(({ src, readyState }) => [new URL(src).searchParams.get("t"), readyState >= 2])), (all) => all.length === 1 && all[0][0] === asked[2] && all[0][1]);
    forget(/never/);
  },

  async "Live with several cameras needs no right clock of the viewer"() {
    const page = await tab();
    // By the server's clock the recording ended a moment ago. The viewer's clock is ten minutes ahead of it.
    await page.clock.install({ time: start + seconds * 1000 + 3000 + AHEAD });
    await page.route("**/api/**", async (route) => {
      try {
        const answer = await route.fetch();
        const date = new Date((await page.evaluate(() => Date.now())) - AHEAD).toUTCString();
        await route.fulfill({ response: answer, headers: { ...answer.headers(), date } });
      } catch {
        // The page was closed meanwhile.
      }
    });
    await page.route("**/hls/live.m3u8*", async (route) => {
      const camera = new URL(route.request().url()).searchParams.get("camera");
      const past = `${address}/hls/index.m3u8?${new URLSearchParams({ camera, from: new Date(start).toISOString(), to: new Date(start + 30_000).toISOString() })}`;
      const list = await (await fetch(past)).text();
      return route.fulfill({ contentType: "application/vnd.apple.mpegurl", body: list.replace("#EXT-X-ENDLIST", "").replace(/#EXT-X-PLAYLIST-TYPE:\w+\n/, "") }).catch(() => {});
    });
    await page.route("**/api/events", (route) => route.abort());
    await page.goto(`${address}/?${new URLSearchParams([["cam", "flv"], ["cam", "site/ts"], ["t", new Date(start + 1000).toISOString()]])}`);
    await until("they do not play", () => page.$$eval("video[aria-label]", (all) => all.map(({ readyState }) => readyState)), (all) => all.length === 2 && all.every((ready) => ready >= 2));
    await page.click("button:has-text('Live')");
    await until("it is not live", () => page.textContent(".when"), (now) => /live, 1\d s behind/.test(now));
    forget(/never/);
  },

  async "] alone marks the minute before it, which stays though the picture goes on; the table has rows while it is open"() {
    const page = await tab();
    await page.goto(url("flv", start + 2000));
    await plays(page, "flv");
    await page.keyboard.press("]");
    const marks = () => page.$$eval(".take time", (all) => all.map((time) => Date.parse(time.getAttribute("datetime"))));
    const [from, to] = await marks();
    assert.equal(to - from, 60_000);
    const at = await shown(page);
    await until("it does not go on", () => shown(page), (now) => now > at + 2500);
    assert.deepEqual(await marks(), [from, to]);
    assert.equal((await page.$$("details td")).length, 0);
    await page.click("summary:has-text('table')");
    await page.waitForSelector("td:has-text('recorded')");
    await page.click("summary:has-text('table')");
    await until("a closed table is filled", () => page.$$("details td"), (all) => all.length === 0);
  },

  async "the address is that of the picture that was paused at and stepped to, alone and beside others"() {
    const page = await tab();
    await page.goto(`${address}/?${new URLSearchParams({ cam: "flv" })}`);
    await plays(page, "flv");
    assert.ok(Number.isNaN(inAddress(page)));
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    const there = async () => Math.abs(inAddress(page) - (await shown(page)));
    await until("the address is another one", there, (off) => off < 50);
    const before = inAddress(page);
    for (let step = 0; step < 5; step++) await page.keyboard.press(".");
    await until("it does not follow the steps", () => inAddress(page) - before, (by) => by > 150 && by < 300);
    await until("the address is another picture's", there, (off) => off < 50);
    await page.goto(`${address}/?${new URLSearchParams([["cam", "flv"], ["cam", "site/ts"], ["t", new Date(start + 1000).toISOString()]])}`);
    await until("they do not go on", () => shown(page), (at) => at > start + 2500);
    await page.keyboard.press("k");
    await until("the address of both is another one", there, (off) => off < 50);
    assert.ok(inAddress(page) > start + 2000);
  },

  async "a login that ends keeps the screen with its marks, goes on after the next one, and says if the browser does not keep it"() {
    const page = await tab();
    await page.addInitScript(() => Object.defineProperty(globalThis, "isSecureContext", { value: false }));
    await page.goto(url("flv", start + 2000));
    await plays(page, "flv");
    await page.keyboard.press("[");
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    const [mark, at] = [await page.$eval(".take time", (time) => time.dateTime), await shown(page)];
    let isIn = false;
    await page.route("**/api/**", (route) => (isIn ? route.continue() : route.fulfill(refused)));
    await page.route("**/login", (route) => route.fulfill({ status: 204 }));
    for (let step = 0; step < 4; step++) await page.keyboard.press("-");
    await page.waitForSelector("#token");
    assert.match(await page.textContent(".login"), /This page came without https/);
    await accessible(page, "login above a screen");
    await page.screenshot({ path: join(screenshots, "login-again.png") });
    await page.fill("#token", "the right one, with a k");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".login [role=alert]:has-text('this browser did not keep the login: open the dashboard by https')");
    isIn = true;
    await page.keyboard.press("Enter");
    await until("the login stays", () => page.$$(".login"), (all) => all.length === 0);
    assert.equal(await page.$eval(".take time", (time) => time.dateTime), mark);
    assert.ok(Math.abs((await shown(page)) - at) < 100, "it is another picture");
    assert.equal((await state(page)).paused, true);
    await page.click("summary:has-text('Calendar')");
    await page.waitForSelector(".days button:not([disabled])");
    forget(/401/);
  },

  async "who goes back to the first screen finds it as it was"() {
    const page = await tab();
    await page.goto(address);
    for (const id of ["flv", "holed"]) await page.locator(`.card:has(.name:text-is("${id}")) input`).check();
    await page.click('.card:has(.name:text-is("flv")) a');
    await plays(page, "flv");
    await page.route("**/api/**", (route) => route.abort());
    await page.goBack();
    await page.waitForSelector(".card", { timeout: 3000 });
    assert.match(await page.textContent(".beside"), /Watch 2 cameras/);
    assert.equal(await page.locator('.card:has(.name:text-is("holed")) input').isChecked(), true);
    forget(/ERR_FAILED|Failed to load/);
  },

  async "an answer of somebody else is told as such, and an id that every object has is one as any other"() {
    const page = await tab();
    await page.route(/\/(api|hls)\//, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><title>Log in</title>" }));
    const foreign = /something in front of the dashboard answered; reload the page/;
    for (const to of [address, `${address}/?cam=flv`, url("flv", start)]) {
      await page.goto(to);
      await until(`${to}: it is not told`, () => text(page), (now) => foreign.test(now));
    }
    await page.unrouteAll();
    await page.goto(url("constructor", start));
    await until("it is not told", () => text(page), (now) => now.includes("nothing is stored of this camera yet"));
    assert.doesNotMatch(await page.textContent(".when"), /function|does not know/);
    forget(/EventSource|404/);
  },

  async "a hidden page asks for nothing, and what is refused for good is not asked for again"() {
    const page = await tab();
    await page.clock.install();
    const asked = [];
    await page.route("**/api/*", (route) => {
      const { pathname } = new URL(route.request().url());
      asked.push(pathname);
      if (pathname === "/api/timeline") return route.fulfill({ status: 400, json: { error: "more than 100,000 objects begin with it", hint: "ask for less" } });
      return pathname === "/api/cameras" ? route.fulfill({ status: 503, json: { error: "the bucket is busy", hint: "" } }) : route.continue();
    });
    const count = (path) => asked.filter((one) => one === path).length;
    await page.goto(`${address}/?${new URLSearchParams({ cam: "flv" })}`);
    await page.clock.runFor(1000);
    await until("it is not told", () => text(page), (now) => now.includes("more than 100,000 objects") && now.includes("the bucket is busy; it is tried again"));
    const first = count("/api/timeline");
    await page.clock.runFor(30_000);
    await until("what is busy is not asked for again", () => count("/api/cameras"), (times) => times > 5);
    assert.equal(count("/api/timeline"), first);
    const hide = (isHidden) =>
      page.evaluate((value) => {
        Object.defineProperty(document, "hidden", { value, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }, isHidden);
    await hide(true);
    // A request from before may still reach the route after the page is hidden.
    await page.waitForTimeout(300);
    const before = asked.length;
    for (let turn = 0; turn < 6; turn++) await page.clock.runFor(10_000);
    await page.waitForTimeout(300);
    assert.deepEqual(asked.slice(before), []);
    await hide(false);
    await until("who looks again waits", () => asked.length, (many) => many > before);
    forget(/400|503/);
  },
};
