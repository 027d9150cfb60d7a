/**
 * The desired state: sites, services and exposures, with their checks and their changes.
 * @module
 */
export {
  CLOUD,
  type DesiredInput,
  type DesiredState,
  type Exposure,
  type ExposureInput,
  exposureName,
  type Owner,
  presenceFamily,
  type Service,
  type ServiceInput,
  type Site,
  type SiteInput,
} from './model.ts';
export { Registry, type RegistryEvents } from './registry.ts';
export { type DesiredSource, type ExposureId, exposureId, type Touched } from './source.ts';
