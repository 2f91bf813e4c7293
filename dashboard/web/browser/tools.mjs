// Shared by the browser tests: a tab that records every fault, waiting, and reading what the page shows.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [address, plan, screenshots, executablePath] = process.argv.slice(2);
export { address, screenshots };
export const data = JSON.parse(readFileSync(plan, "utf8"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE = 30_000;

export const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"] });
export const faults = [];

/** Opens a tab that records in `faults` every error of the console and every failed request. */
export async function tab(viewport = { width: 1280, height: 900 }) {
  // The page's policy stays in force, so that a violation is recorded as a fault.
  const context = await browser.newContext({ viewport, bypassCSP: false });
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && faults.push(`console: ${message.text()} (${message.location().url})`));
  page.on("pageerror", (error) => faults.push(`page: ${error.stack}`));
  page.on("requestfailed", (request) => {
    // ERR_ABORTED is no fault: the page aborts a request when a newer one replaces it.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") faults.push(`request: ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on("response", (response) => response.status() >= 400 && faults.push(`answer: ${response.status()} ${response.url()}`));
  page.on("dialog", (dialog) => faults.push(`dialog: ${dialog.message()}`));
  return page;
}

export const state = (page) =>
  page.$eval("video[aria-label]", (video) => {
    const quality = video.getVideoPlaybackQuality();
    return { time: video.currentTime, frames: quality.totalVideoFrames, width: video.videoWidth, ready: video.readyState, paused: video.paused };
  });
export const shown = (page) => page.$eval(".when time", (time) => Date.parse(time.getAttribute("datetime")));
export const url = (camera, at) => `${address}/?${new URLSearchParams({ cam: camera, t: new Date(at).toISOString() })}`;

const FPS = 25;

/** Reads each picture: the seconds since the beginning of its recording, from its pixels, and whether it is shown at all. */
export const pictures = (page) =>
  page.evaluate((fps) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [320, 180];
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    // A video that has loaded data and decoded none is drawn black; below its number the test picture is never dark.
    const isDark = () => pen.getImageData(0, 100, 320, 1).data.every((value, index) => index % 4 === 3 || value < 64);
    return [...document.querySelectorAll("video[aria-label]")].map((video) => {
      const known = { seeking: video.seeking, words: video.parentElement.textContent, paused: video.paused, rate: video.playbackRate };
      const nothing = () => ({ ...known, seconds: null, ready: video.readyState, time: video.currentTime, buffered: Array.from({ length: video.buffered.length }, (_, i) => [video.buffered.start(i), video.buffered.end(i)]) });
      if (video.readyState < 2) return nothing();
      pen.drawImage(video, 0, 0, 320, 180);
      if (isDark()) return nothing();
      let number = 0;
      for (let bit = 0; bit < 10; bit++) number += (pen.getImageData(bit * 32 + 16, 16, 1, 1).data[0] > 128 ? 1 : 0) << bit;
      return { ...known, seconds: number / fps };
    });
  }, FPS);

/** Reads a value until the condition holds, and returns it. After the time limit fails, with the last value in the message. */
export async function until(what, read, holds) {
  const end = Date.now() + PATIENCE;
  let value;
  while (Date.now() < end) {
    value = await read();
    if (holds(value)) return value;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`${what}: ${JSON.stringify(value)}`);
}

export async function accessible(page, name) {
  // The debugger evaluates it, so the page's policy need not allow it.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`), [], name);
}
