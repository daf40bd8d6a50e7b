// Other clients than the stock one, as their documents show them. Each puts the data of its messages, parsed, into `window.__messages`.
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { EventSourcePolyfill } from "event-source-polyfill";

const headers = { Authorization: "Bearer a-token" };

window.__messages = [];
window.__errors = [];

const receive = ({ data }) => window.__messages.push(JSON.parse(data));

window.__open = {
  EventSource(url) {
    new EventSource(url).onmessage = receive;
  },
  // A script in a browser cannot set headers with an EventSource. The polyfill resumes with `lastEventId` in the URL.
  "event-source-polyfill"(url) {
    new EventSourcePolyfill(url, { headers }).onmessage = receive;
  },
  // It hands on every block, also one without data, and one that `JSON.parse` rejects ends the stream.
  "fetch-event-source"(url) {
    const done = fetchEventSource(url, { headers, onmessage: receive, openWhenHidden: true });
    done.catch((error) => window.__errors.push(String(error)));
  },
};
