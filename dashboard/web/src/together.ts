// Up to four cameras on one clock. The clock runs with real time and waits for late pictures; the players follow it.
import type { Skipped } from "./bar";
import { now as present } from "./now";
import { type Place, Player, ranges } from "./player";
import { behindHole, isAwaited, liveAt, RECENT, SEEK_PATIENCE, SETTLED, steered } from "./steady";

/** The most cameras beside each other. */
export const MOST = 4;
/** Interval of the clock, ms. */
const TICK = 100;
/** How long to wait before loading a window again that failed, or whose recording may have grown, ms. */
const AGAIN = 5000;
/** If no camera has a picture for longer than this, the clock skips to the next one, ms. */
const LEAP = 5000;
/** How long the page says that the clock skipped something, ms. */
const TOLD = 6000;
/** The state of a camera that the screen shows. */
export interface ScreenState {
  place: Place["kind"];
  /** The instant of its picture, ms since 1970. */
  at: number | undefined;
  /** In a gap: when the recording goes on. After all recordings: their end. ms since 1970. */
  until: number | undefined;
  /** The reason of the gap, if the search for the next recording found one. */
  reason: string | undefined;
  /** The latest error text; empty while a picture is shown. */
  fault: string;
  /** Codecs of streams that do not play in a browser. */
  leftOut: string[];
}

/** A camera that follows the clock. */
class Led {
  readonly player: Player;
  private fault = "";
  private leftOut: string[] = [];
  private asked = 0;
  /** Since when its picture is late, by `performance.now()`. */
  private lateSince: number | undefined;
  private seekingSince: number | undefined;

  constructor(private readonly video: HTMLVideoElement, camera: string) {
    this.player = new Player(video, camera, {
      moved: () => {},
      said: (what) => (this.fault = typeof what === "string" ? what : ""),
      leftOut: (names) => (this.leftOut = names),
    }, true);
  }

  /** Returns whether the clock must wait for this picture. */
  isAwaited(at: number, speed: number, now: number): boolean {
    if (this.player.isUnplayable()) return false;
    const { kind } = this.player.place(at);
    const own = this.video.seeking || this.video.readyState < 2 ? undefined : this.player.at();
    const off = own === undefined ? undefined : own - at;
    if (!isAwaited(kind, off, speed, 0)) this.lateSince = undefined;
    else this.lateSince ??= now;
    return isAwaited(kind, off, speed, this.lateSince === undefined ? 0 : now - this.lateSince);
  }

  /** Follows the running recording. If there is none, `follow` loads the window around the instant later. */
  goLive(at: number, now: number): void {
    this.asked = now;
    void this.player.follow(at, false);
  }

  /** Steers the video to the instant, loads what is missing for it, and returns the state to show. */
  follow(at: number, speed: number, runs: boolean, now: number): ScreenState {
    const { player, video } = this;
    const place = player.place(at);
    const isOpen = place.kind === "after" && present() - at < RECENT;
    const isDue = now - this.asked > AGAIN && !document.hidden;
    if ((!player.covers(at) || place.kind === "loading" || isOpen) && (isDue || !player.covers(at))) {
      this.asked = now;
      // The player reloads a live playlist itself. For an instant that it does not hold, load the window around that instant.
      if (!player.isLive() || place.kind !== "after" || this.fault) void player.load(at);
    }
    if (place.kind === "stored") this.steer(place.position, speed, runs, now);
    else if (!video.paused) video.pause();
    const until = place.kind === "gap" ? place.until : place.kind === "after" ? place.end : undefined;
    const isShown = place.kind === "stored" && video.readyState >= 2;
    return { place: place.kind, at: player.at(), until, reason: place.kind === "gap" ? place.reason : undefined, fault: isShown ? "" : this.fault, leftOut: this.leftOut };
  }

  private steer(position: number, speed: number, runs: boolean, now: number): void {
    const { video } = this;
    if (video.readyState === 0) return;
    if (video.seeking) {
      this.seekingSince ??= now;
      const hangs = now - this.seekingSince > SEEK_PATIENCE && Math.abs(video.currentTime - position) * 1000 > SETTLED;
      const to = hangs ? position : behindHole(video.currentTime, ranges(video.buffered));
      if (to === undefined) return;
      video.currentTime = to;
      this.seekingSince = now;
      return;
    }
    this.seekingSince = undefined;
    const order = steered(video.currentTime, position, speed, runs);
    if (video.playbackRate !== order.rate) video.playbackRate = order.rate;
    if (order.seek !== undefined) video.currentTime = order.seek;
    if (order.play && video.paused) void this.player.play();
    else if (!order.play && !video.paused) video.pause();
  }
}

/** The clock and the cameras that follow it. */
export class Together {
  private readonly all: Led[];
  private readonly timer: ReturnType<typeof setInterval>;
  private last = performance.now();
  private speed = 1;
  private runs = true;
  private live = false;
  /** The instant of the last seek. It may be after the present, if a camera's clock is ahead. */
  private picked = 0;
  /** What the clock skipped, and when (`performance.now()`). */
  private leapt: { over: Skipped; when: number } | undefined;

  constructor(videos: HTMLVideoElement[], cameras: string[], private at: number, private readonly report: (at: number, runs: boolean, waits: boolean, cameras: ScreenState[], leapt: Skipped | undefined) => void) {
    this.all = cameras.flatMap((camera, index) => (videos[index] ? [new Led(videos[index], camera)] : []));
    this.timer = setInterval(this.tick, TICK);
    this.tick();
  }

  close(): void {
    clearInterval(this.timer);
    for (const { player } of this.all) player.close();
  }

  seek(at: number): void {
    [this.at, this.picked] = [at, at];
    if (this.live) for (const { player } of this.all) if (player.isLive()) void player.load(this.at);
    [this.live, this.leapt] = [false, undefined];
    this.tick();
  }

  isLive(): boolean {
    return this.live;
  }

  /** Goes live: near the end of what is stored, then on with what is stored from now on. `ends` are those of the cameras, ms since 1970. */
  goLive(ends: number[]): void {
    const chunks = this.all.map(({ player }) => player.chunk() ?? 0);
    const to = liveAt(ends, Math.max(...chunks, 0), present());
    // The page shows the normal speed from now on, also where nothing is stored.
    this.setSpeed(1);
    if (!to) return;
    [this.at, this.live, this.runs] = [to.at, to.isLive, true];
    const now = performance.now();
    for (const led of this.all) {
      if (to.isLive) led.goLive(to.at, now);
      else if (led.player.isLive()) void led.player.load(to.at);
    }
    this.tick();
  }

  setRunning(runs: boolean): void {
    this.runs = runs;
    this.tick();
  }

  setSpeed(speed: number): void {
    this.speed = speed;
  }

  /** Returns the limit of the clock: the present or, for cameras whose clocks are ahead, the end of what they stored. */
  private latest(): number {
    return Math.max(present(), this.picked, ...this.all.map(({ player }) => player.end() ?? 0));
  }

  /** No camera has a picture: skips to the first one that has. If no recording follows for any camera, stops the clock there. */
  private pass(before: number, cameras: ScreenState[], now: number): void {
    const [next] = cameras.filter(({ place }) => place === "gap").sort((a, b) => (a.until ?? 0) - (b.until ?? 0));
    if (next?.until === undefined) {
      const ends = cameras.flatMap(({ until }) => until ?? []);
      this.at = ends.length > 0 ? Math.min(this.at, Math.max(...ends) + 1000) : before;
    } else if (next.until - this.at > LEAP) {
      this.leapt = { over: { at: this.at, until: next.until, reason: next.reason }, when: now };
      this.at = next.until;
    }
  }

  private tick = (): void => {
    const now = performance.now();
    // In a background tab browsers run timers once a second only. A longer pause, as of a sleeping device, does not move the clock.
    const passed = Math.min(1500, now - this.last);
    this.last = now;
    const before = this.at;
    const waits = this.all.map((led) => led.isAwaited(this.at, this.speed, now)).includes(true);
    if (this.runs && !waits) this.at = Math.min(this.at + passed * this.speed, this.latest());
    const cameras = this.all.map((led) => led.follow(this.at, this.speed, this.runs && !waits, now));
    if (this.runs && cameras.length > 0 && cameras.every(({ place }) => place === "after" || place === "gap")) this.pass(before, cameras, now);
    const leapt = this.leapt && now - this.leapt.when < TOLD ? this.leapt.over : undefined;
    this.report(this.at, this.runs, waits, cameras, leapt);
  };
}
