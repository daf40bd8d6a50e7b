// Ends with the results, as lines of status, name and message.
const COMPLETED = new Promise((resolve) => {
  add_completion_callback((tests, status) => {
    const line = (name, test) => [test.status, name, test.message ?? ""].map((it) => String(it).replace(/[\t\n\r]/g, " ")).join("\t");
    const all = tests.map((test) => line(test.name, test));
    if (status.status !== 0) all.push(line("(harness)", status));
    resolve(all.join("\n"));
  });
});
