export const POST = () => new Response("made");
