/**
 * The local HTTP interface for operators and their scripts.
 * @module
 */
export {
  ADMIN_SERVER_DEFAULTS,
  type AdminHandler,
  type AdminRequest,
  AdminServer,
  type AdminServerOptions,
} from './admin-server.ts';
export { adminRoutes } from './routes.ts';
export type {
  AdminTarget,
  CaStep,
  CaStepOptions,
  CloudCaStatus,
  SiteTokenOptions,
} from './target.ts';
