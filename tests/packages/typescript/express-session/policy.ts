import session from "express-session";

const parse = session({ secret: "s", resave: false, saveUninitialized: false });

export const middleware = ({ request }: { request: Request }) => new Promise<Response | undefined>((resolve) => parse(request as never, {} as never, () => resolve(undefined)));
