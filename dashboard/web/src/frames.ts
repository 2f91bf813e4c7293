// How long a frame is, by what the browser shows.

/** What is taken for a frame of which nothing is known, s. */
const USUAL = 1 / 25;
/** So many lengths are remembered. */
const MANY = 32;

/** The length of a frame, s, by the distances of those that were shown after each other: some were left out, few came too early. */
export function frameLength(distances: number[]): number {
  const sorted = [...distances].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 4)] ?? USUAL;
}

/** Watches which frames a video shows, and goes to the next one or the one before. */
export class Frames {
  private distances: number[] = [];
  private last: { time: number; number: number } | undefined;
  /** The middle of the frame that a step led to. */
  private wanted: number | undefined;
  private handle = 0;

  constructor(private readonly video: HTMLVideoElement) {
    this.look();
  }

  close(): void {
    if (this.handle) this.video.cancelVideoFrameCallback(this.handle);
  }

  /** Goes to the middle of the next frame (1) or of the one before (-1). */
  step(direction: 1 | -1): void {
    const { video } = this;
    video.pause();
    const length = frameLength(this.distances);
    // Steps that come faster than their frames add up.
    const isUnderWay = this.wanted !== undefined && Math.abs(video.currentTime - this.wanted) < 0.001;
    const shown = this.last && Math.abs(video.currentTime - this.last.time) < 2 * length ? this.last.time + length / 2 : video.currentTime;
    this.wanted = Math.max(0, (isUnderWay && this.wanted !== undefined ? this.wanted : shown) + direction * length);
    video.currentTime = this.wanted;
  }

  private look(): void {
    if (!("requestVideoFrameCallback" in this.video)) return;
    this.handle = this.video.requestVideoFrameCallback((_, { mediaTime, presentedFrames }) => {
      const { last, video } = this;
      const distance = last ? mediaTime - last.time : 0;
      // Fast playing leaves frames out.
      const isNext = last && presentedFrames === last.number + 1 && !video.paused && video.playbackRate <= 1;
      if (isNext && distance > 0 && distance < 1) this.distances = [...this.distances.slice(1 - MANY), distance];
      this.last = { time: mediaTime, number: presentedFrames };
      this.look();
    });
  }
}
