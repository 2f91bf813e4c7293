// hls.js as a separate file: the page loads it when a camera is opened.
export { default } from "hls.js";
