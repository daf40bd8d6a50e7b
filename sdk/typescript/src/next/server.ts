// `next/server` for middlewares of Next.js apps.
import { RequestCookies } from "./cookies.ts";

/** A request with its cookies and its parsed URL. */
export class NextRequest extends Request {
  get cookies(): RequestCookies {
    return new RequestCookies(this.headers);
  }

  get nextUrl(): URL {
    return new URL(this.url);
  }
}

/** A response with the static constructors of Next.js. */
export class NextResponse extends Response {
  static override json(body: unknown, init?: ResponseInit): NextResponse {
    const response = Response.json(body, init);
    return new NextResponse(response.body, response);
  }

  static override redirect(url: string | URL, init?: number | ResponseInit): NextResponse {
    const { status = 307, headers } = typeof init === "object" ? init : { status: init };
    const response = new NextResponse(null, { status, headers });
    response.headers.set("location", new URL(url).href);
    return response;
  }

  static next(init?: ResponseInit): NextResponse {
    const response = new NextResponse(null, init);
    response.headers.set("x-middleware-next", "1");
    return response;
  }
}
