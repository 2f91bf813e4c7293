// The player, a file of its own: loaded when a camera is opened.
export { default } from "hls.js";
