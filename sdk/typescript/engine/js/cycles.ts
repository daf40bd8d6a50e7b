// Modules that import each other, which can only be evaluated together.

/** Groups `order` into its cycles. Each is in the order of `order`, and so are the groups by their first modules; most groups have one module. */
export function cyclesOf(order: string[], importsOf: (id: string) => string[]): string[][] {
  const position = new Map(order.map((id, at) => [id, at]));
  const cycles: string[][] = [];
  const state = new Map<string, { index: number; low: number; isOpen: boolean }>();
  const open: string[] = [];

  /** The algorithm of Tarjan, without recursion, because a chain of imports may be long. */
  const visit = (start: string) => {
    const work = [{ id: start, rest: enter(start) }];
    for (let top = work.at(-1); top; top = work.at(-1)) {
      const mine = state.get(top.id) as { index: number; low: number; isOpen: boolean };
      const next = top.rest.pop();
      if (next !== undefined) {
        const other = state.get(next);
        if (!other) work.push({ id: next, rest: enter(next) });
        else if (other.isOpen) mine.low = Math.min(mine.low, other.index);
        continue;
      }
      work.pop();
      const parent = work.at(-1);
      const above = parent && state.get(parent.id);
      if (above) above.low = Math.min(above.low, mine.low);
      if (mine.low === mine.index) cycles.push(close(top.id));
    }
  };
  const enter = (id: string) => {
    state.set(id, { index: state.size, low: state.size, isOpen: true });
    open.push(id);
    return importsOf(id).filter((it) => position.has(it));
  };
  const close = (first: string) => {
    const cycle = open.splice(open.indexOf(first));
    for (const id of cycle) (state.get(id) as { isOpen: boolean }).isOpen = false;
    return cycle.sort(byPosition);
  };
  const byPosition = (left: string, right: string) => (position.get(left) ?? 0) - (position.get(right) ?? 0);

  for (const id of order) if (!state.has(id)) visit(id);
  return cycles.sort((left, right) => byPosition(left[0] ?? "", right[0] ?? ""));
}
