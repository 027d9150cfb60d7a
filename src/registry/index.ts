/**
 * Sites, services, exposures: the desired state, its changes and its checks.
 * @module
 */
export {
  CLOUD,
  type DesiredState,
  type Exposure,
  exposureName,
  type Owner,
  presenceFamily,
  type Service,
  type Site,
} from './model.ts';
export { Registry, type RegistryEvents } from './registry.ts';
