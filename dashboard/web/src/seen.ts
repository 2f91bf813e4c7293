// Timers that wait while the page is hidden, so that it sends no requests then.

/** Calls `work` every `every` ms while the page is visible, and when it becomes visible. Returns a function that ends this. */
export function whileSeen(work: () => void, every: number): () => void {
  const again = () => void (document.hidden || work());
  const timer = setInterval(again, every);
  document.addEventListener("visibilitychange", again);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", again);
  };
}

/** Calls `work` once, after `delay` ms. If the page is hidden then, waits until it is visible. Returns a function that cancels it. */
export function onceSeen(work: () => void, delay: number): () => void {
  const due = () => {
    if (document.hidden) return;
    document.removeEventListener("visibilitychange", due);
    work();
  };
  const timer = setTimeout(() => {
    document.addEventListener("visibilitychange", due);
    due();
  }, delay);
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", due);
  };
}

/** Waits `delay` ms, and longer while the page is hidden. */
export const pause = (delay: number): Promise<void> => new Promise((done) => void onceSeen(done, delay));
