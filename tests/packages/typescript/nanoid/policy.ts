import { customAlphabet, nanoid } from "nanoid";
import { allow, type Middleware } from "@tidegate/policy";

const code = customAlphabet("0123456789", 6);

export const middleware: Middleware = () => {
  const ids = [nanoid(), nanoid()];
  if (ids[0] === ids[1] || ids[0]?.length !== 21 || !/^\d{6}$/.test(code())) throw new Error(ids.join());
  return allow({ headers: { "x-trace": ids[0] } });
};
