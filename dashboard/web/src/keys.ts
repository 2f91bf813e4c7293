// Maps key presses to the page's keys, independent of the keyboard layout. Pure functions.

/** The part of a KeyboardEvent that is needed here. */
export interface Pressed { key: string; code: string; ctrlKey: boolean; altKey: boolean; metaKey: boolean; getModifierState(name: string): boolean }

/** Keys that are not letters, by their place on the keyboard, for layouts without Latin letters. */
const PLACES: Record<string, string> = { BracketLeft: "[", BracketRight: "]", Comma: ",", Period: "." };

/** Returns the key as the page names it; `undefined` if it belongs to the browser or the system. */
export function meant(event: Pressed): string | undefined {
  const { key, code } = event;
  if (event.ctrlKey || event.altKey || event.metaKey) {
    // Many keyboards type brackets with AltGr, which is reported as Ctrl and Alt, or with Option.
    const types = event.getModifierState("AltGraph") || (event.altKey && !event.ctrlKey && !event.metaKey);
    return types && (key === "[" || key === "]") ? key : undefined;
  }
  // A letter of another script counts as the Latin letter on the same key.
  if (key.length === 1 && key > "\x7f") return /^Key[A-Z]$/.test(code) ? code.slice(3).toLowerCase() : PLACES[code];
  // With Caps Lock or Shift a letter means the same.
  return /^[A-Z]$/.test(key) ? key.toLowerCase() : key;
}
