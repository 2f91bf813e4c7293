// Plays recordings in a real browser, using the page as a person would. Run by dashboard/tests/browser.rs.
// usage: node browser.mjs DASHBOARD-ADDRESS PLAN.json SCREENSHOTS CHROMIUM
// PLAN: {"cameras": [{"id", "start", "seconds", "sound"}], "gap": {"camera", "from", "to"},
//   "evil": "device id", "login": {"address", "token"}, "mqtt": {"address", "port", "topic", "frozen"},
//   "redirected": "address", "iap": {"address", "header"}, "refused": "address",
//   "outage": milliseconds, "setBack": milliseconds, "live": {"address", "cameras", "trigger"}}
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { again } from "./again.mjs";
import { answers } from "./answers.mjs";
import { beyond } from "./beyond.mjs";
import { together } from "./together.mjs";
import { accessible, address, browser, data, faults, pictures, screenshots, shown, state, tab, until, url } from "./tools.mjs";
import { webm } from "./webm.mjs";

const { cameras, gap, evil, login, mqtt, redirected, iap, refused } = data;

const tests = {
  async "the first screen shows every camera with a picture and its state"() {
    const page = await tab();
    await page.goto(address);
    await page.waitForSelector(".card");
    const names = await page.$$eval(".card .name", (all) => all.map((name) => name.textContent));
    for (const { id } of cameras) assert.ok(names.includes(id), `${id} among ${names}`);
    assert.ok(names.includes(evil), `${names}`);
    assert.match(await page.textContent(".summary"), /\d+ recording/);
    await until("pictures", () => page.$$eval(".picture video", (all) => all.filter((video) => video.videoWidth > 0 && video.readyState >= 2).length), (count) => count >= cameras.length);
    assert.equal(await page.$("script:not([src])"), null);
    await page.waitForSelector(".happened table, .happened .quiet");
    await until("what the listing cost is not told", () => page.textContent("footer"), (text) => /[1-9]\d* list requests since the start/.test(text));
    await accessible(page, "first screen");
    await page.screenshot({ path: join(screenshots, "board.png"), fullPage: true });
    await page.click(`.card:has-text("${cameras[0].id}") a`);
    await page.waitForSelector("video[aria-label]");
    assert.equal(new URL(page.url()).searchParams.get("cam"), cameras[0].id);
    await page.goBack();
    await page.waitForSelector(".card");
  },

  async "recordings of each container play across their chunks"() {
    for (const { id, start, seconds } of cameras) {
      const page = await tab();
      let playlists = 0;
      page.on("request", (request) => request.url().includes("/hls/index.m3u8") && playlists++);
      await page.goto(url(id, start + 2000));
      const first = await until(`${id} does not start`, () => state(page), ({ frames, time }) => frames > 5 && time > 0);
      assert.equal(first.width, 320);
      assert.ok(Math.abs((await shown(page)) - start - 2000) < 3000, `${id} begins at ${new Date(await shown(page)).toISOString()}`);
      // Chunks are four seconds long, so eight more seconds cross two borders.
      await page.selectOption(".controls select", "4");
      await until(`${id} does not go on`, () => shown(page), (at) => at > start + 11_000);
      const later = await state(page);
      assert.ok(later.frames > first.frames + 20, `${id}: ${JSON.stringify(later)}`);
      if (id === cameras[0].id) {
        await accessible(page, "watch screen");
        await page.screenshot({ path: join(screenshots, "watch.png"), fullPage: true });
      }
      await until(`${id} does not reach its end`, () => shown(page), (at) => at > start + seconds * 1000 - 150);
      assert.equal(playlists, 1, `${id} asks for one playlist once`);
      await page.context().close();
    }
  },

  async "sound that a browser does not play is told, and the picture plays"() {
    const page = await tab();
    const { start } = cameras[0];
    await page.goto(url("telephone", start + 1000));
    await until("it does not play", () => state(page), ({ frames, time }) => frames > 5 && time > 0);
    await page.waitForSelector("[role=note]:has-text('Sound as G.711 A-law does not play here and is left out')");
    await accessible(page, "left out");
  },

  async "sound that comes late or pauses, and pictures that pause, do not stop what plays"() {
    const { start, seconds } = cameras[0];
    for (const camera of ["late-sound", "pausing"]) {
      const page = await tab();
      await page.goto(url(camera, start + 500));
      await until(`${camera} does not start`, () => state(page), ({ frames, time }) => frames > 5 && time > 0);
      await until(`${camera} does not reach its end`, () => shown(page), (at) => at > start + seconds * 1000 - 150);
      const { frames } = await state(page);
      // Some 16 s at 25 frames a second; late ones may be dropped.
      assert.ok(frames > 350, `${camera}: ${frames} pictures`);
      await page.context().close();
    }
  },

  async "a click, a drag and the keys go to their instants"() {
    const { id, start } = cameras[0];
    const page = await tab();
    await page.goto(url(id, start + 3000));
    await until("it does not start", () => state(page), ({ frames }) => frames > 2);
    await page.keyboard.press("k");
    await until("k does not pause", () => state(page), ({ paused }) => paused);
    // Zoom in until a second is some pixels wide.
    for (let step = 0; step < 6; step++) await page.keyboard.press("+");
    const bar = page.locator(".bar");
    const box = await bar.boundingBox();
    const edges = async () => [Number(await bar.getAttribute("aria-valuemin")), Number(await bar.getAttribute("aria-valuemax"))].map((s) => s * 1000);
    const at = async (instant) => {
      const [from, to] = await edges();
      return { x: box.x + ((instant - from) / (to - from)) * box.width, y: box.y + 30 };
    };
    const there = await at(start + 9000);
    await page.mouse.click(there.x, there.y);
    await until("the click does not arrive", () => shown(page), (now) => Math.abs(now - start - 9000) < 2500);
    await until("it does not play after the click", () => state(page), ({ paused, ready }) => !paused && ready >= 2);
    await page.keyboard.press("k");
    const [a, b] = [await at(start + 6000), await at(start + 14_000)];
    await page.mouse.move(a.x, a.y);
    await page.mouse.down();
    await page.mouse.move(b.x, b.y, { steps: 8 });
    await until("no picture while dragging", () => page.$$eval(".peek", (all) => all.map((video) => video.videoWidth)), ([width]) => width === 320);
    await page.screenshot({ path: join(screenshots, "drag.png") });
    await page.mouse.up();
    await until("the drag does not arrive", () => shown(page), (now) => Math.abs(now - start - 14_000) < 2500);
    await page.keyboard.press("k");
    const before = await shown(page);
    await page.keyboard.press("j");
    await until("j does not go back", () => shown(page), (now) => Math.abs(now - before + 10_000) < 2500);
    assert.ok(Math.abs(Date.parse(new URL(page.url()).searchParams.get("t")) - before + 10_000) < 2500, "the address follows");
  },

  async "a gap is told and played over"() {
    const page = await tab();
    await page.goto(url(gap.camera, gap.from - 2500));
    await until("it does not start", () => state(page), ({ frames }) => frames > 2);
    await until("it stops at the gap", () => shown(page), (at) => at > gap.to + 500);
    await page.goto(url(gap.camera, (gap.from + gap.to) / 2));
    await until("the gap is not told", () => page.textContent("body"), (text) => text.includes("nothing is recorded here; it goes on"));
    await until("it does not go on behind the gap", () => shown(page), (at) => at >= gap.to - 100);
    await page.click("summary:has-text('table')");
    await page.waitForSelector("td:has-text('gap: not in the bucket')");
    await page.click("summary:has-text('Calendar')");
    await page.waitForSelector(".days button:not([disabled])");
    await page.screenshot({ path: join(screenshots, "gap.png"), fullPage: true });
    await accessible(page, "gap, table and calendar");
  },

  async "a range is marked by keys, prepared with its progress, and downloaded with its manifest"() {
    const { id, start } = cameras[0];
    const page = await tab();
    await page.goto(url(id, start + 3000));
    await until("it does not start", () => state(page), ({ frames }) => frames > 2);
    await page.keyboard.press("k");
    await page.keyboard.press("[");
    const marked = await page.$eval(".take time", (time) => Date.parse(time.getAttribute("datetime")));
    assert.ok(Math.abs(marked - start - 3000) < 2500, "the beginning");
    await page.keyboard.press("l");
    await until("l does not go on", () => shown(page), (at) => at > start + 12_000);
    await page.keyboard.press("k");
    await page.keyboard.press("]");
    const coming = page.waitForEvent("download");
    await page.keyboard.press("e");
    const download = await coming;
    assert.match(download.suggestedFilename(), /^flv_\d{8}T\d{6}Z_\d{8}T\d{6}Z\.mp4$/);
    const bytes = readFileSync(await download.path());
    assert.equal(bytes.subarray(4, 8).toString(), "ftyp");
    await page.waitForSelector(".take a:has-text('manifest')");
    const manifest = await page.$eval(".take a:has-text('manifest')", async (link) => (await fetch(link.href)).json());
    assert.deepEqual([manifest.camera, manifest.size, manifest.format], [id, bytes.length, "mp4"]);
    await accessible(page, "take away");
    await page.setViewportSize({ width: 390, height: 844 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `the file's name makes a phone's page ${wide} pixels too wide`);
    await page.screenshot({ path: join(screenshots, "take.png"), fullPage: true });
  },

  async "a badge turns when the camera reports that it froze, and times are in the camera's zone"() {
    const page = await tab();
    await page.goto(mqtt.address);
    const card = page.locator(".card:has-text('Back door')");
    await card.locator(".badge").waitFor();
    assert.doesNotMatch(await card.textContent(), /camera lost/);
    // The report says that it froze just now, so that the result does not depend on how long the tests before this one took.
    const now = new Date().toISOString();
    const frozen = JSON.stringify({ ...JSON.parse(mqtt.frozen), since: now, ts: now });
    execFileSync("mosquitto_pub", ["-h", "127.0.0.1", "-p", String(mqtt.port), "-r", "-q", "1", "-t", mqtt.topic, "-m", frozen]);
    await until("the badge does not turn", () => card.textContent(), (text) => /camera lost/.test(text) && /no pictures since/.test(text));
    assert.match(await page.textContent(".summary"), /1 camera lost/);
    assert.match(await page.textContent(".card:first-child"), /Back door/, "trouble is first");
    assert.match(await card.textContent(), /the oldest recording has waited/);
    await accessible(page, "board with trouble");
    await page.screenshot({ path: join(screenshots, "trouble.png"), fullPage: true });
    const { start } = cameras.find(({ id }) => id === "flv");
    await page.goto(`${mqtt.address}/?${new URLSearchParams({ cam: "flv", t: new Date(start + 2000).toISOString() })}`);
    await until("the zone is not shown", () => page.textContent(".when"), (text) => text.includes("Asia/Tokyo"));
    // The recording between the end of what is stored and the freeze is pending.
    await page.waitForSelector(".legend:has-text('recorded, not yet uploaded')");
    await page.click("summary:has-text('table')");
    await page.waitForSelector("td:has-text('recorded, not yet uploaded')");
    await page.screenshot({ path: join(screenshots, "pending.png"), fullPage: true });
    const shows = async () => Number((await page.textContent(".when time")).slice(0, 2));
    const utc = new Date(start + 2000).getUTCHours();
    assert.equal(await shows(), (utc + 9) % 24);
    await page.check(".when input");
    await until("UTC is not shown", shows, (hour) => hour === utc || hour === (utc + 1) % 24);
  },

  async "a camera that is known by its reports alone has a page that says so"() {
    const page = await tab();
    await page.goto(mqtt.address);
    await page.click(".card:has-text('not recording') a");
    assert.equal(new URL(page.url()).searchParams.get("cam"), "new");
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("nothing is stored of this camera yet"));
    await accessible(page, "nothing stored yet");
    await page.screenshot({ path: join(screenshots, "nothing-yet.png"), fullPage: true });
    assert.deepEqual(faults, []);
    await page.click("button:has-text('Live')");
    await until("an answer is not waited for", () => faults.length, (count) => count > 0);
    assert.match(await page.textContent(".screen"), /nothing is stored of this camera yet/);
    assert.deepEqual(faults.filter((fault) => !fault.includes("404")), []);
    faults.length = 0;
  },

  async "the page of a camera without recordings plays the first one that comes"() {
    const page = await tab();
    const { id } = cameras[0];
    let asked = 0;
    await page.route("**/api/cameras", async (route) => {
      const all = await (await route.fetch()).json();
      asked++;
      return route.fulfill({ json: asked > 3 ? all : all.map((camera) => ({ ...camera, last_stored: null })) });
    });
    await page.goto(`${address}/?${new URLSearchParams({ cam: id })}`);
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("nothing is stored of this camera yet"));
    await until("it does not start", () => state(page), ({ frames }) => frames > 5);
    assert.doesNotMatch(await page.textContent(".screen"), /yet/);
  },

  async "whoever has the token logs in, and the address never shows it"() {
    const page = await tab();
    await page.goto(login.address);
    await page.fill("#token", "not the token at all");
    await page.click("button[type=submit]");
    await page.waitForSelector("[role=alert]:has-text('this is not the token')");
    await page.screenshot({ path: join(screenshots, "login.png") });
    await accessible(page, "login");
    await page.fill("#token", login.token);
    await page.click("button[type=submit]");
    await page.waitForSelector(".card");
    assert.ok(!page.url().includes(login.token));
    await page.reload();
    await page.waitForSelector(".card");
    // The 401s are expected: they make the page ask for the token.
    assert.deepEqual(faults.filter((fault) => !fault.includes("401")), []);
    faults.length = 0;
  },

  async "recordings play through the dashboard where the bucket does not answer the page"() {
    for (const id of ["site/fmp4", "site/ts"]) {
      const page = await tab();
      const asked = [];
      page.on("request", (request) => asked.push(request.url()));
      const { start } = cameras.find((camera) => camera.id === id);
      await page.goto(`${redirected}/?${new URLSearchParams({ cam: id, t: new Date(start + 2000).toISOString() })}`);
      await until(`${id} does not play`, () => state(page), ({ frames, time, paused }) => frames > 25 && time > 2 && !paused);
      assert.ok(asked.some((address) => address.startsWith("https://storage.invalid/")), "the bucket was asked first");
      assert.ok(asked.some((address) => /\/media\/.*delivery=proxy/.test(address)));
      // The bucket's host does not exist, so the console and failed requests report it. Nothing else may be wrong.
      assert.deepEqual(faults.filter((fault) => !/storage\.invalid|ERR_NAME_NOT_RESOLVED|\/media\//.test(fault)), []);
      faults.length = 0;
    }
  },

  async "behind Identity-Aware Proxy the page says when its session has ended"() {
    const page = await tab();
    await page.setExtraHTTPHeaders({ "x-goog-iap-jwt-assertion": iap.header });
    await page.goto(iap.address);
    await page.waitForSelector(".card");
    await page.setExtraHTTPHeaders({});
    await page.click(`.card:has-text("${cameras[0].id}") a`);
    await page.waitForSelector("[role=alert]:has-text('Your session has ended')");
    assert.equal(await page.$("#token"), null, "no token is asked for");
    await accessible(page, "session ended");
    assert.deepEqual(faults.filter((fault) => !fault.includes("401")), []);
    faults.length = 0;
  },

  async "a bucket that refuses is told with the missing permission, and shown once it does not"() {
    const page = await tab();
    await page.goto(refused);
    await page.waitForSelector(".trouble:has-text('does not have storage.objects.list access'):has-text('roles/storage.objectViewer')");
    await accessible(page, "refused");
    await page.screenshot({ path: join(screenshots, "refused.png"), fullPage: true });
    await page.waitForSelector(".card:has-text('site/cam')");
    await until("the trouble does not go", () => page.$$eval(".trouble", (all) => all.length), (count) => count === 0);
    assert.deepEqual(faults.filter((fault) => !fault.includes("502")), []);
    faults.length = 0;
  },

  async "a piece that was deleted meanwhile is told, and the rest plays"() {
    const { id, start, seconds } = cameras[0];
    const page = await tab();
    const gone = [];
    await page.route(/\/media\/.*_000002\./, (route) => {
      gone.push(route.request().url());
      return route.fulfill({ status: 404, contentType: "application/json", body: '{"error": "this recording does not exist any more", "hint": ""}' });
    });
    await page.goto(url(id, start + 2000));
    await until("it does not start", () => state(page), ({ frames }) => frames > 5);
    await until("it is not told", () => page.textContent(".screen"), (text) => text.includes("a piece is not in the bucket any more"));
    await until("the rest does not play", () => shown(page), (at) => at > start + 14_000 && at <= start + seconds * 1000);
    await until("it stands still", () => state(page), ({ paused, ready }) => !paused && ready >= 2);
    assert.ok(gone.length > 0);
    assert.deepEqual(faults.filter((fault) => !fault.includes("404")), []);
    faults.length = 0;
  },

  async "a piece that was damaged in the bucket is told, and the rest plays, in each container"() {
    for (const [index, { id, start, seconds }] of cameras.entries()) {
      const page = await tab();
      await page.goto(url(`damaged/${index}`, start + 2000));
      await until(`${id} does not start`, () => state(page), ({ frames }) => frames > 5);
      // These two are sent as they are stored. The server reports no damage, and hls.js skips it by itself.
      if (!["site/ts", "site/fmp4"].includes(id)) await until(`${id} is not told`, () => page.textContent(".screen"), (text) => text.includes("a piece cannot be played: "));
      await until(`the rest of ${id} does not play`, () => shown(page), (at) => at > start + 14_000 && at <= start + seconds * 1000);
      await page.context().close();
    }
    assert.deepEqual(faults.filter((fault) => !fault.includes("415")), []);
    faults.length = 0;
  },

  async "after a clock was set back an instant shows what was recorded then"() {
    const { start } = cameras[0];
    const page = await tab();
    // The clock was set back: the last eight seconds of the recording have times of half an hour before.
    await page.goto(url("set-back", start - data.setBack + 1000));
    const [picture] = await until("it shows another picture", () => pictures(page), ([{ seconds }]) => seconds >= 12.5);
    assert.ok(picture.seconds < 15, JSON.stringify(picture));
    assert.ok(!picture.words.includes("nothing is recorded here"), picture.words);
    const at = await shown(page);
    assert.ok(at > start - data.setBack + 500 && at < start - data.setBack + 8500, new Date(at).toISOString());
  },

  async "an address at the end of time says that nothing is stored then"() {
    const page = await tab();
    await page.goto(`${address}/?cam=${cameras[0].id}&t=9999-12-31T23:59:59Z`);
    await until("it is not said", () => page.textContent(".screen"), (text) => text.includes("nothing is stored after"));
    assert.ok((await page.textContent(".when")).includes("255"), await page.textContent(".when"));
    faults.length = 0;
  },

  async "it fits a phone"() {
    const page = await tab({ width: 390, height: 844 });
    for (const [name, to] of [["phone-board", address], ["phone-watch", url(cameras[0].id, cameras[0].start + 3000)]]) {
      await page.goto(to);
      await page.waitForSelector(".card, .bar");
      await page.waitForTimeout(300);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${name} is ${wide} pixels too wide`);
      await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
    }
  },
};

let failed = 0;
for (const [name, test] of Object.entries({ ...tests, ...together, ...beyond, ...again, ...webm, ...answers })) {
  // ONLY=text runs only the tests whose name contains the text.
  if (!name.includes(process.env.ONLY ?? "")) continue;
  faults.length = 0;
  try {
    await test();
    assert.deepEqual(faults, [], "the browser complained");
    console.log(`ok - ${name}`);
  } catch (error) {
    failed++;
    console.log(`not ok - ${name}\n${error.stack}\n${faults.join("\n")}`);
    const page = browser.contexts().at(-1)?.pages().at(-1);
    await page?.screenshot({ path: join(screenshots, "failed.png") }).catch(() => {});
  }
  for (const context of browser.contexts()) await context.close();
}
await browser.close();
process.exit(failed ? 1 : 0);
