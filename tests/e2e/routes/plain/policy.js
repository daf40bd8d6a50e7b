// The middleware alone, in JavaScript, with `await` at top level.
const greeting = await Promise.resolve(process.env.GREETING);

export default function middleware({ channels }) {
  if (channels.includes("open")) return;
  return new Response(`${greeting}, no`, { status: 403 });
}
