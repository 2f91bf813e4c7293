// What waits while nobody looks: a hidden page need not ask the bucket.

/** Does something again and again while the page is seen. Returns what ends that. */
export function whileSeen(work: () => void, every: number): () => void {
  const again = () => void (document.hidden || work());
  const timer = setInterval(again, every);
  document.addEventListener("visibilitychange", again);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", again);
  };
}

/** Does something once, `delay` ms from now, or when the page is seen again after that. Returns what calls it off. */
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

/** Waits as [`onceSeen`] does. */
export const pause = (delay: number): Promise<void> => new Promise((done) => void onceSeen(done, delay));
