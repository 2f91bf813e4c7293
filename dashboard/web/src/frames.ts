// The length of a frame, measured from the frames that the browser shows.

/** The assumed length of a frame before one was measured, s. */
const USUAL = 1 / 25;
/** How many measured distances are kept. */
const MANY = 32;

/** Returns the length of a frame, s, from distances between shown frames. Takes the lower quartile: some frames were dropped, few came early. */
export function frameLength(distances: number[]): number {
  const sorted = [...distances].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 4)] ?? USUAL;
}

/** Measures the frames of a video, and steps to the next or previous one. */
export class Frames {
  private distances: number[] = [];
  private last: { time: number; number: number } | undefined;
  /** Where the last step went: the middle of a frame, s. */
  private wanted: number | undefined;
  private handle = 0;

  constructor(private readonly video: HTMLVideoElement) {
    this.look();
  }

  close(): void {
    if (this.handle) this.video.cancelVideoFrameCallback(this.handle);
  }

  /** Pauses, and seeks to the middle of the next frame (1) or of the one before (-1). */
  step(direction: 1 | -1): void {
    const { video } = this;
    video.pause();
    const length = frameLength(this.distances);
    // Repeated steps add up, even if the frame of the previous one is not shown yet.
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
      // Above normal speed browsers drop frames, so distances say nothing about their length.
      const isNext = last && presentedFrames === last.number + 1 && !video.paused && video.playbackRate <= 1;
      if (isNext && distance > 0 && distance < 1) this.distances = [...this.distances.slice(1 - MANY), distance];
      this.last = { time: mediaTime, number: presentedFrames };
      this.look();
    });
  }
}
