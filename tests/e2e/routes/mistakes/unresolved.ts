import { session } from "@/lib/nowhere";

export const middleware = () => session;
