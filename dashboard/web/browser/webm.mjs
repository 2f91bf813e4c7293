// Recordings in WebM, with VP9 or AV1 and Opus, which the dashboard rewrites as MP4.
import assert from "node:assert/strict";
import { address, data, pictures, state, tab, until, url } from "./tools.mjs";

const start = data.cameras.find(({ id }) => id === "flv").start;
const seconds = async (page) => (await pictures(page))[0]?.seconds;
/** Seeks the video element to `to`, in seconds of the recording, relative to the picture that it shows. */
const moveTo = async (page, to) => page.$eval("video[aria-label]", (video, by) => (video.currentTime += by), to - (await seconds(page)));

export { tests as webm };
const tests = {
  async "VP9 and AV1 that were recorded as WebM play with their sound, and over the borders of chunks"() {
    for (const camera of ["webm/vp9", "webm/av1"]) {
      const page = await tab();
      await page.goto(address);
      const card = page.locator(".card", { hasText: camera });
      await card.scrollIntoViewIfNeeded();
      await until(`${camera} has no picture on its card`, () => card.locator("video").evaluateAll((all) => all.map((video) => video.videoWidth)), ([width]) => width === 320);
      await page.goto(url(camera, start + 1000));
      await until(`${camera} does not start`, () => state(page), ({ frames, time }) => frames > 5 && time > 0);
      await until(`${camera} has no sound`, () => page.$eval("video[aria-label]", (video) => video.webkitAudioDecodedByteCount), (bytes) => bytes > 0);
      // Chunks are four seconds long, so playing on from here crosses a border. The pictures must go on there without a jump.
      await until("it does not show a picture", () => seconds(page), (at) => at !== null);
      await moveTo(page, 3.2);
      await until(`${camera} does not go before the border`, () => seconds(page), (at) => at > 3 && at < 3.9);
      const seen = [];
      await until(`${camera} does not go over the border`, async () => (seen.push(await seconds(page)), seen.at(-1)), (at) => at > 4.8 && at < 7);
      assert.ok(seen.every((at, index) => at !== null && (index === 0 || (at >= seen[index - 1] && at - seen[index - 1] < 0.5))), `${camera}: ${seen}`);
      // Seek over two borders, and back.
      for (const to of [13, 2.5]) {
        await moveTo(page, to);
        await until(`${camera} does not go to ${to} s`, () => seconds(page), (at) => at !== null && Math.abs(at - to) < 1.5);
      }
      await page.context().close();
    }
  },
};
