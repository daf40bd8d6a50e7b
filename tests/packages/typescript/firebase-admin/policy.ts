import { getAuth } from "firebase-admin/auth";

export const middleware = async ({ request }: { request: Request }) => {
  await getAuth().verifyIdToken(request.headers.get("authorization")?.slice(7) ?? "");
};
