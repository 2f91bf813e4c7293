// Failures: what the page shows meanwhile, and that it recovers by itself.
import assert from "node:assert/strict";
import { join } from "node:path";
import { address, accessible, data, faults, pictures, screenshots, shown, state, tab, until, url } from "./tools.mjs";

const { start } = data.cameras.find(({ id }) => id === "flv");
const DAY = 24 * 3_600_000;
const plays = (page, what) => until(`${what} does not play`, () => state(page), ({ frames, paused, ready }) => frames > 2 && !paused && ready >= 2);
/** Clears the faults that a test caused on purpose. Fails if there are others. */
function forget(made) {
  assert.deepEqual(faults.filter((fault) => !made.test(fault)), []);
  faults.length = 0;
}
/** Answers requests for these segments (by number) with 415, as if they were damaged. Returns the list of those requests, which grows. */
async function damaged(page, numbers) {
  const asked = [];
  await page.route(new RegExp(`/media/.*_00000[${numbers}]\\.`), (route) => {
    asked.push(route.request().url());
    return route.fulfill({ status: 415, json: { error: "it is broken", hint: "" } });
  });
  return asked;
}

export { tests as again };
const tests = {
  async "a player that could not be loaded is loaded again"() {
    const page = await tab();
    let asked = 0;
    await page.route("**/assets/hls.js*", (route) => (++asked === 1 ? route.abort() : route.continue()));
    await page.goto(url("flv", start + 1000));
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("the player cannot be loaded from the dashboard; it is tried again"));
    await plays(page, "flv");
    assert.equal(asked, 2);
    forget(/ERR_FAILED|Failed to load/);
  },

  async "a card that is opened while the dashboard is away plays once it is back, and is told in plain words"() {
    const page = await tab();
    let isAway = true;
    await page.route("**/api/**", (route) => (isAway ? route.abort() : route.continue()));
    await page.goto(`${address}/?${new URLSearchParams({ cam: "flv" })}`);
    await until("it is not told", () => page.textContent("main"), (text) => text.includes("the dashboard does not answer; it is tried again"));
    assert.doesNotMatch(await page.textContent("main"), /fetch/);
    isAway = false;
    await plays(page, "flv");
    await page.waitForSelector(".add select");
    forget(/ERR_FAILED|Failed to load/);
  },

  async "Live on a camera that records no more says so, and what was shown is not called live"() {
    const page = await tab();
    await page.goto(`${address}/?${new URLSearchParams({ cam: "early" })}`);
    await plays(page, "early");
    await page.click("button:has-text('Live')");
    await until("it is not told", () => page.textContent(".screen"), (text) => /nothing was stored of this camera in the last hour/.test(text));
    assert.doesNotMatch(await page.textContent(".when"), /live/);
    // The keys still move in the recording that is shown.
    await page.keyboard.press("j");
    await until("j does not lead back", () => shown(page), (at) => at < 22_000);
    forget(/404.*\/hls\//);
  },

  async "a running recording that was paused is paused after an outage, at the same picture"() {
    const page = await tab();
    const past = `${address}/hls/index.m3u8?${new URLSearchParams({ camera: "flv", from: new Date(start).toISOString(), to: new Date(start + 30_000).toISOString() })}`;
    let [isAway, refused] = [false, 0];
    await page.route("**/hls/live.m3u8*", async (route) => {
      if (isAway) return (refused++, route.abort());
      const text = await (await route.fetch({ url: past })).text();
      return route.fulfill({ contentType: "application/vnd.apple.mpegurl", body: text.replace("#EXT-X-ENDLIST", "").replace(/#EXT-X-PLAYLIST-TYPE:\w+\n/, "") });
    });
    await page.goto(url("flv", start + 1000));
    await plays(page, "flv");
    await page.click("button:has-text('Live')");
    await page.waitForSelector(".when .live");
    await plays(page, "the running recording");
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    const at = await shown(page);
    isAway = true;
    await until("it is not asked for", () => refused, (times) => times > 0);
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("it is tried again"));
    isAway = false;
    await until("it does not come back", () => page.textContent(".screen"), (text) => !text.includes("it is tried again"));
    await until("there is no picture", () => state(page), ({ ready }) => ready >= 2);
    assert.equal((await state(page)).paused, true);
    assert.ok(Math.abs((await shown(page)) - at) < 1000, `${(await shown(page)) - at} ms away`);
    forget(/ERR_FAILED|Failed to load/);
  },

  async "the bar stays on the day that was chosen, and − shows more of what is seen"() {
    const page = await tab();
    const bounds = () => page.$eval(".bar", (bar) => ["aria-valuemin", "aria-valuemax"].map((name) => Number(bar.getAttribute(name)) * 1000));
    await page.goto(url("flv", start + 1000));
    await plays(page, "flv");
    await page.locator(".when input").check();
    await page.click("summary:has-text('Calendar')");
    const midnight = Math.floor(start / DAY) * DAY;
    await page.click(`.days button:not([disabled]) >> text=/^${new Date(midnight).getUTCDate()}$/`);
    await until("it does not go there", () => shown(page), (at) => at >= start - 100);
    await plays(page, "the day");
    // In the last hour or so of a day the bar follows the picture, so the view moves.
    if (start - midnight < DAY * 0.94) assert.deepEqual(await bounds(), [midnight, midnight + DAY]);
    const box = await page.locator(".bar").boundingBox();
    await page.mouse.move(box.x + 5, box.y + 30);
    for (let turn = 0; turn < 12; turn++) await page.mouse.wheel(0, -480);
    const [from, to] = await until("it does not zoom", bounds, ([low, high]) => high - low <= 61_000);
    await page.click("[aria-label='Zoom out']");
    const [low, high] = await until("it does not zoom out", bounds, ([low, high]) => high - low > 100_000);
    assert.ok(low <= from && high >= to, `${[low, high]} instead of around ${[from, to]}`);
    forget(/404.*\/hls\//);
  },

  async "the time bar is moved by keys as sliders are, and the browser keeps its own"() {
    const page = await tab();
    await page.goto(url("flv", start + 6000));
    await plays(page, "flv");
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    const at = await shown(page);
    await page.locator(".bar").focus();
    await page.keyboard.press("Alt+ArrowRight");
    await page.keyboard.press("ArrowRight");
    await until("the arrow is not five seconds", () => shown(page), (now) => Math.abs(now - at - 5000) < 1500);
    await page.locator(".bar").click({ button: "right", position: { x: 3, y: 30 } });
    assert.ok((await shown(page)) > at, "the right button went elsewhere");
  },

  async "a device without network is told so, and goes on when it is back"() {
    const page = await tab();
    await page.goto(url("flv", start + 1000));
    await plays(page, "flv");
    await page.context().setOffline(true);
    await page.waitForSelector("[role=alert]:has-text('This device has no network')");
    await accessible(page, "without network");
    await page.screenshot({ path: join(screenshots, "offline.png") });
    await page.context().setOffline(false);
    await until("it is still told", () => page.$$("[role=alert]"), (all) => all.length === 0);
    await until("no picture", () => pictures(page), ([one]) => one.seconds !== null);
    forget(/ERR_INTERNET_DISCONNECTED|Failed to load/);
  },

  async "a start inside a piece that cannot be played goes on behind it"() {
    const page = await tab();
    await damaged(page, "2");
    await page.goto(url("flv", start + 9000));
    const [{ seconds }] = await until("it does not go on", () => pictures(page), ([one]) => one?.seconds > 0);
    assert.ok(seconds >= 12, `it shows what was recorded ${seconds} s after the begin`);
    forget(/415/);
  },

  async "two pieces in a row that cannot be played are gone over"() {
    const page = await tab();
    const asked = await damaged(page, "12");
    await page.goto(url("flv", start + 1000));
    await until("it does not go on", () => shown(page), (at) => at > start + 14_000);
    await plays(page, "what is behind them");
    // Two requests for each segment: its init segment and its media.
    assert.ok(asked.length <= 4, asked.join(" "));
    forget(/415/);
  },

  async "who goes back into a piece that cannot be played is led behind it, and who pauses before it keeps the picture"() {
    const page = await tab();
    const asked = await damaged(page, "2");
    await page.goto(url("flv", start + 13_000));
    await plays(page, "flv");
    await page.keyboard.press("k");
    await until("it is not loaded to its end", () => page.$eval("video[aria-label]", ({ buffered, currentTime }) => (buffered.length > 0 ? buffered.end(buffered.length - 1) - currentTime : 0)), (left) => left > 4);
    assert.equal(asked.length, 0, "the piece is not asked for yet");
    await page.$eval("video[aria-label]", (video, by) => (video.currentTime -= by), ((await shown(page)) - start) / 1000 - 9);
    const [{ seconds }] = await until("it does not go on", () => pictures(page), ([one]) => one.seconds !== null && !one.seeking);
    assert.ok(seconds >= 12 && seconds < 14, `it shows what was recorded ${seconds} s after the begin`);
    await page.goto(url("flv", start + 5000));
    await plays(page, "flv");
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    const at = await shown(page);
    await page.waitForTimeout(5000);
    // The paused picture may be one frame away from the one that was read first.
    assert.ok(Math.abs((await shown(page)) - at) < 100, `the picture of ${at} is kept`);
    forget(/415/);
  },

  async "the newest piece cannot be played: it is told, and not asked for again"() {
    const page = await tab();
    const asked = await damaged(page, "4");
    await page.goto(url("flv", start + 14_000));
    await until("it is not told", () => page.textContent(".screen"), (text) => /a piece cannot be played: it is broken; nothing is stored after/.test(text));
    const [many, at] = [asked.length, await shown(page)];
    await page.waitForTimeout(2500);
    assert.equal(asked.length, many, asked.join(" "));
    assert.ok(Math.abs((await shown(page)) - at) < 100, `the picture of ${at} is kept`);
    assert.ok(at > start + 15_000, "what is before it was shown");
    // Going elsewhere still works.
    await page.keyboard.press("j");
    await until("j does not go back", () => shown(page), (now) => now < at - 5000);
    await plays(page, "what was before");
    forget(/415/);
  },

  async "a running recording goes on behind a piece that cannot be played"() {
    const page = await tab();
    const asked = await damaged(page, "2");
    let end = 8000;
    await page.route("**/hls/live.m3u8*", async (route) => {
      const past = `${address}/hls/index.m3u8?${new URLSearchParams({ camera: "flv", from: new Date(start).toISOString(), to: new Date(start + end).toISOString() })}`;
      const text = await (await route.fetch({ url: past })).text();
      return route.fulfill({ contentType: "application/vnd.apple.mpegurl", body: text.replace("#EXT-X-ENDLIST", "").replace(/#EXT-X-PLAYLIST-TYPE:\w+\n/, "") });
    });
    await page.goto(url("flv", start + 1000));
    await plays(page, "flv");
    await page.click("button:has-text('Live')");
    await page.waitForSelector(".when .live");
    await plays(page, "the running recording");
    end = 12_000;
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("a piece cannot be played: it is broken; it goes on after it"));
    await until("what is before it is not shown", () => shown(page), (at) => at > start + 7500);
    await page.waitForTimeout(2000);
    const many = asked.length;
    assert.ok(many <= 4, asked.join(" "));
    end = 30_000;
    await until("it does not go on", () => shown(page), (at) => at > start + 12_500);
    await plays(page, "what is behind it");
    assert.equal(await page.locator(".when .live").count(), 1);
    assert.equal(asked.length, many, asked.join(" "));
    forget(/415/);
  },
};
