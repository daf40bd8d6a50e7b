// A small app with the unchanged client half of @upstash/realtime. The page shows the received events and the status of the connection,
// and `window` exposes both to the tests.
import { createRealtime, RealtimeProvider } from "@upstash/realtime/client";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);
const api = { url: query.get("api"), withCredentials: true };
const { useRealtime } = createRealtime();

window.__received = [];
window.__statuses = [];

function Feed() {
  const [channels, setChannels] = useState(() => JSON.parse(query.get("channels")));
  const [received, setReceived] = useState([]);
  const { status } = useRealtime({
    channels,
    onData(event) {
      window.__received.push(event);
      setReceived([...window.__received]);
    },
  });

  useEffect(() => {
    window.__setChannels = setChannels;
  }, []);
  useEffect(() => {
    window.__status = status;
    window.__statuses.push(status);
  }, [status]);

  return (
    <main>
      <p id="status">{status}</p>
      <p id="channels">{channels.join(" ")}</p>
      <ul id="received">
        {received.map((event, index) => (
          <li key={index}>{`${event.channel} ${event.event} ${JSON.stringify(event.data)}`}</li>
        ))}
      </ul>
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <RealtimeProvider api={api}>
    <Feed />
  </RealtimeProvider>,
);
