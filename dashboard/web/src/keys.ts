// Which key was meant, whatever the layout of the keyboard. Pure.

/** Of a KeyboardEvent. */
export interface Pressed { key: string; code: string; ctrlKey: boolean; altKey: boolean; metaKey: boolean; getModifierState(name: string): boolean }

/** Keys that are no letters, by their place on a keyboard: what a layout without Latin letters has there. */
const PLACES: Record<string, string> = { BracketLeft: "[", BracketRight: "]", Comma: ",", Period: "." };

/** The key as the page names it; undefined: it belongs to the browser or the system. */
export function meant(event: Pressed): string | undefined {
  const { key, code } = event;
  if (event.ctrlKey || event.altKey || event.metaKey) {
    // Brackets are typed so on many keyboards: with AltGr, which is told as Ctrl and Alt, or with the Option key.
    const types = event.getModifierState("AltGraph") || (event.altKey && !event.ctrlKey && !event.metaKey);
    return types && (key === "[" || key === "]") ? key : undefined;
  }
  // Letters of another script stand for those on the same keys.
  if (key.length === 1 && key > "\x7f") return /^Key[A-Z]$/.test(code) ? code.slice(3).toLowerCase() : PLACES[code];
  // Caps Lock.
  return /^[A-Z]$/.test(key) ? key.toLowerCase() : key;
}
