// Up to four cameras on one clock, checked by the numbers painted into their pictures.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { accessible, address, data, pictures, screenshots, shown, tab, until } from "./tools.mjs";

const { cameras, gap, live } = data;
const ids = ["flv", "site/ts", "site/fmp4", "holed"];
const start = cameras.find(({ id }) => id === "flv").start;
const together = (all, at) => `${address}/?${new URLSearchParams([...all.map((id) => ["cam", id]), ["t", new Date(at).toISOString()]])}`;

const visible = (all) => all.filter(({ words }) => words === "");
const spread = (all) => Math.max(...all.map(({ seconds }) => seconds)) - Math.min(...all.map(({ seconds }) => seconds));
const clockOf = async (page) => ((await shown(page)) - start) / 1000;
const isTogether = (all, count) => visible(all).length === count && visible(all).every(({ seconds }) => seconds !== null) && spread(visible(all)) < 0.5;

/** Checks `times` times, every 0.2 s, that the visible pictures are within half a second of each other and of the clock. */
async function stay(page, times, speed) {
  const far = [];
  for (let time = 0; time < times; time++) {
    const [all, clock] = [await pictures(page), await clockOf(page)];
    const seen = visible(all).filter(({ seconds }) => seconds !== null);
    // The clock is read a moment after the pictures, hence the margin that grows with the speed.
    const off = seen.map(({ seconds }) => Math.abs(seconds - clock));
    if (seen.length > 1 && (spread(seen) > 0.5 || Math.max(...off) > 0.5 + 0.3 * speed)) far.push(JSON.stringify({ clock, all }));
    await page.waitForTimeout(200);
  }
  assert.deepEqual(far, [], "pictures are apart");
}

export { tests as together };
const tests = {
  async "four cameras play, pause and go on one clock"() {
    const page = await tab();
    await page.goto(together(ids, start + 2000));
    await until("they do not start together", () => pictures(page), (all) => isTogether(all, 4));
    await until("they do not play", () => clockOf(page), (at) => at > 2.5);
    await stay(page, 10, 1);
    await page.screenshot({ path: join(screenshots, "together.png"), fullPage: true });
    await accessible(page, "four cameras");
    await page.keyboard.press("k");
    const stopped = await until("they do not pause", () => pictures(page), (all) => all.every(({ paused }) => paused));
    await page.waitForTimeout(500);
    assert.deepEqual((await pictures(page)).map(({ seconds }) => seconds), stopped.map(({ seconds }) => seconds));
    await page.goto(together(ids, start + 15_000));
    await until("the address does not lead there", () => pictures(page), (all) => isTogether(all, 4) && all.every(({ seconds }) => Math.abs(seconds - 15) < 2.5));
    await page.keyboard.press("j");
    await until("j does not lead all ten seconds back", () => pictures(page), (all) => isTogether(all, 4) && all.every(({ seconds }) => seconds > 3 && seconds < 8));
    assert.ok(Math.abs(Date.parse(new URL(page.url()).searchParams.get("t")) - start - 5000) < 2500, "the address follows");
    assert.deepEqual(new URL(page.url()).searchParams.getAll("cam"), ids);
    await page.selectOption(".controls select", "2");
    const [from, at] = [await clockOf(page), Date.now()];
    await page.waitForTimeout(1500);
    const [passed, took] = [(await clockOf(page)) - from, (Date.now() - at) / 1000];
    assert.ok(passed > took * 1.2, `${passed} s in ${took} s at twice the speed`);
  },

  async "a camera with a gap says so in words, the others go on, and it catches up"() {
    const page = await tab();
    await page.goto(together(ids, gap.from - 2500));
    await until("they do not start together", () => pictures(page), (all) => isTogether(all, 4));
    const words = () => pictures(page).then((all) => all.map(({ words }) => words));
    await until("the gap is not told", words, ([a, b, c, d]) => a === "" && b === "" && c === "" && /^nothing is recorded until .*: not in the bucket/.test(d));
    await page.screenshot({ path: join(screenshots, "together-gap.png"), fullPage: true });
    const before = await clockOf(page);
    await until("the others do not go on", () => clockOf(page), (at) => at > before + 1);
    await stay(page, 5, 1);
    // The clock waits only a limited time for this picture. On a slow machine the recording could end first: pause once the gap has ended.
    await until("the gap does not end", () => clockOf(page), (at) => at > (gap.to - start) / 1000 + 0.3);
    await page.keyboard.press("k");
    await until("it does not catch up", () => pictures(page), (all) => isTogether(all, 4) && all[3].seconds > (gap.to - start) / 1000 - 0.2);
    await page.keyboard.press("k");
    await stay(page, 10, 1);
  },

  async "one of the cameras is heard, the others are not"() {
    const page = await tab();
    await page.goto(together(ids, start + 2000));
    await until("they do not start together", () => pictures(page), (all) => isTogether(all, 4));
    const heard = () => page.$$eval("video[aria-label]", (all) => all.map((video) => !video.muted));
    assert.deepEqual(await heard(), [false, false, false, false]);
    const sound = (index) => page.locator("figure").nth(index).locator("input");
    await sound(1).check();
    assert.deepEqual(await heard(), [false, true, false, false]);
    const bytes = () => page.$eval("figure:nth-of-type(2) video", (video) => video.webkitAudioDecodedByteCount);
    const before = await bytes();
    await until("no sound is decoded", bytes, (count) => count > before);
    await stay(page, 5, 1);
    await sound(2).check();
    assert.deepEqual(await heard(), [false, false, true, false]);
    assert.equal(await sound(1).isChecked(), false);
    await sound(2).uncheck();
    assert.deepEqual(await heard(), [false, false, false, false]);
  },

  async "live leads all cameras to the running recordings, and they stay there"() {
    writeFileSync(live.trigger, "");
    const page = await tab();
    const playlists = [];
    page.on("request", (request) => request.url().includes("/hls/") && playlists.push(new URL(request.url()).pathname));
    await page.goto(`${live.address}/?${new URLSearchParams([...live.cameras.map((id) => ["cam", id]), ["t", new Date(Date.now() - 19_000).toISOString()]])}`);
    await until("they do not start together", () => pictures(page), (all) => isTogether(all, 2));
    await page.click("button:has-text('Live')");
    await until("it is not told", () => page.textContent(".when"), (text) => /live, 1\d s behind/.test(text));
    await until("they are not live", () => pictures(page), (all) => isTogether(all, 2) && all.every(({ paused }) => !paused));
    playlists.length = 0;
    const [from, began] = [await shown(page), Date.now()];
    // Long enough for three more chunks of each camera to be stored.
    while (Date.now() - began < 13_000) {
      const all = await pictures(page);
      assert.ok(isTogether(all, 2), JSON.stringify(all));
      await page.waitForTimeout(200);
    }
    const [passed, took] = [(await shown(page)) - from, Date.now() - began];
    assert.ok(Math.abs(passed - took) < 1500, `${passed} ms in ${took} ms`);
    assert.ok(playlists.length > 2 && playlists.every((path) => path === "/hls/live.m3u8"), `${playlists}`);
    await page.screenshot({ path: join(screenshots, "together-live.png"), fullPage: true });
    await page.keyboard.press("j");
    await until("j does not lead back", () => pictures(page), (all) => isTogether(all, 2));
    assert.doesNotMatch(await page.textContent(".when"), /live/);
  },

  async "cameras are put beside each other on the first screen, and on a phone"() {
    const page = await tab({ width: 390, height: 844 });
    await page.goto(address);
    for (const id of ["flv", "holed"]) await page.locator(`.card:has(.name:text-is("${id}")) input`).check();
    await page.screenshot({ path: join(screenshots, "phone-choose.png"), fullPage: true });
    await page.click(".beside a");
    await until("they are not beside each other", () => pictures(page), (all) => all.length === 2 && all.every(({ seconds }) => seconds !== null));
    assert.deepEqual(new URL(page.url()).searchParams.getAll("cam"), ["flv", "holed"]);
    await page.selectOption(".add select", "site/ts");
    await page.click(".add button");
    await until("the third is not added", () => pictures(page), (all) => all.length === 3);
    await page.goto(together(ids, start + 1000));
    await until("four do not play", () => pictures(page), (all) => isTogether(all, 4));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} pixels too wide`);
    await accessible(page, "four cameras on a phone");
    await page.screenshot({ path: join(screenshots, "phone-together.png"), fullPage: true });
  },
};
