export default {
  rewrites: async () => [{ source: "/api/realtime", destination: `${process.env.GATE}/api/realtime` }],
  // The workspace that it would look for above this folder is another one.
  turbopack: { root: import.meta.dirname },
};
