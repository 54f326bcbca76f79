"""From classes and seeds to images, as diffusers runs a pipeline.

With one generator for each image, on the CPU, image i is the one that `diffussm sample` draws from
the seed of generator i. An exported folder carries this class in its `pipeline.py`.
"""

# pyright: reportPrivateImportUsage=false
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffussm.diffusion.guidance import Guidance, guided
from diffussm.diffusion.schedules import kept_timesteps

try:
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        DiffusionPipeline,
        DPMSolverMultistepScheduler,
        ImagePipelineOutput,
        ModelMixin,
        SchedulerMixin,
    )
    from diffusers.utils.torch_utils import randn_tensor
except ImportError:
    raise ValueError("this needs diffusers: pip install 'diffussm[latent]'") from None

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

OWN_GRIDS = ("use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas")
"""Settings of a scheduler that make it choose its time steps by noise."""


class DiffuSSMPipeline(DiffusionPipeline):
    """Draws images with a DiffuSSMTransformer2DModel.

    transformer    the denoiser
    scheduler      one of diffusers'; an exported folder has that of the model's usual sampler
    vae            what makes images of latents; None for a model of pixels
    protocol       what a diffussm model file says besides the model: the "class_names", and in
                   "sampling" and "guidance" what a call does unless told otherwise
    """

    model_cpu_offload_seq = "transformer->vae"
    _optional_components = ["vae"]  # noqa: RUF012 (diffusers reads lists)
    _callback_tensor_inputs = ["latents", "class_labels"]  # noqa: RUF012

    def __init__(
        self,
        transformer: ModelMixin,
        scheduler: SchedulerMixin,
        vae: AutoencoderKL | None = None,
        protocol: dict | None = None,
    ):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)
        self.register_to_config(protocol=protocol or {})

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | Tensor | None = None,
        *,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: int | float | None = None,
        guidance_channels: int | None = None,
        guidance_interval: Sequence[int | float] | None = None,
        eta: int | float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw one image for each class, by the model's usual steps and guidance unless given.

        class_labels    numbers or names; None draws without a class
        batch_size      images without a class; one for each generator, or 1, unless given
        guidance_...    scale 1 is none; only the first so many channels; only where t / steps lies
                        in the interval
        eta             fresh noise of DDIM, 0 to 1
        height, width   in pixels; those of training, unless given
        generator       one for all images, or one for each
        output_type     "pil", "np" or "pt" (numbers in [0, 1]), or "latent", undecoded
        callback_on_step_end    called as (pipeline, step, t, tensors); tensors that it returns
                        take the place of those it was given
        Returns an ImagePipelineOutput, or a tuple of the images alone. Raises ValueError for
        whatever the model cannot draw.
        """
        self._check(output_type, callback_on_step_end_tensor_inputs)
        labels = self._labels(class_labels, batch_size, generator)
        sampling = self._usual("sampling", steps=num_inference_steps, eta=eta)
        guidance = self._usual(
            "guidance", scale=guidance_scale, channels=guidance_channels, interval=guidance_interval
        )
        if class_labels is None:
            if guidance_scale not in (None, 1):
                raise ValueError("images without classes: guidance_scale must be 1")
            guidance["scale"] = 1.0
        denoiser = self._denoiser(guidance)
        first_order = self._set_timesteps(sampling.get("steps", 50))
        options = self._step_options(generator, sampling.get("eta", 0))
        timesteps, device = self.scheduler.timesteps, self._execution_device
        learned = self._learned_variance()
        count, labels = len(labels), labels.to(device)
        shape = (count, self.transformer.config.in_channels, *self._size(height, width))
        latents = randn_tensor(shape, generator, device, torch.float32)
        latents = latents * self.scheduler.init_noise_sigma

        with self.progress_bar(total=len(timesteps)) as bar:  # pyright: ignore[reportCallIssue]
            for step, t in enumerate(timesteps):
                seen = self.scheduler.scale_model_input(latents, t)
                answer = denoiser(seen, t.to(device).expand(count), labels)
                if not learned:
                    answer = answer[:, : shape[1]]
                if step == first_order:
                    self.scheduler.lower_order_nums = 0
                latents = self.scheduler.step(answer, t, latents, **options).prev_sample
                if callback_on_step_end:
                    tensors = {"latents": latents, "class_labels": labels}
                    given = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    tensors |= callback_on_step_end(self, step, t, given) or {}
                    latents, labels = tensors["latents"], tensors["class_labels"]
                bar.update()
        images = latents if output_type == "latent" else self._decoded(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # pyright: ignore

    def _check(self, output_type: str, callback_inputs: Sequence[str]) -> None:
        if output_type not in OUTPUT_TYPES:
            raise ValueError(
                f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {output_type!r}"
            )
        for name in callback_inputs:
            if name not in self._callback_tensor_inputs:
                allowed = ", ".join(self._callback_tensor_inputs)
                raise ValueError(f"a callback can be given {allowed}, not {name}")
        vae = self.vae
        channels = self.transformer.config.in_channels if vae is None else vae.config.out_channels
        if output_type == "pil" and channels not in (1, 3):
            raise ValueError(
                f"{channels} channels are no picture: ask for output_type np, pt or latent"
            )

    def _usual(self, table: str, **given: Any) -> dict[str, Any]:
        """What a call asks for, over what the model's protocol says."""
        asked = {name: value for name, value in given.items() if value is not None}
        return {**self.config["protocol"].get(table, {}), **asked}

    def _labels(self, classes: Any, batch_size: int | None, generator: Any) -> Tensor:
        """The label of each image; that of no class where none are given."""
        known = self.transformer.config.num_classes
        each = len(generator) if isinstance(generator, list) else None
        if classes is None:
            numbers = [known] * (batch_size or each or 1)
        elif not known:
            raise ValueError("this model is unconditional: it draws without classes")
        else:
            classes = classes.tolist() if isinstance(classes, Tensor) else classes
            classes = [classes] if isinstance(classes, int | str) else classes
            numbers = [self._number(name, known) for name in classes]
        if not numbers:
            raise ValueError("there is nothing to draw: give at least one class")
        for name, count in (("batch_size", batch_size), ("generators", each)):
            if count not in (None, len(numbers)):
                raise ValueError(f"{len(numbers)} images do not go with {name}: {count}")
        return torch.tensor(numbers)

    def _number(self, name: int | str, known: int) -> int:
        names = list(self.config["protocol"].get("class_names", ()))
        if isinstance(name, str) and name not in names:
            raise ValueError(
                f"this model has no class named {name!r} (it has: {', '.join(names) or 'no names'})"
            )
        number = names.index(name) if isinstance(name, str) else int(name)
        if not 0 <= number < known:
            raise ValueError(f"class {name} does not exist; this model has 0 to {known - 1}")
        return number

    def _denoiser(self, guidance: dict[str, Any]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The transformer in float32 outside, guided; its kernels are computed once."""
        model, known = self.transformer, self.transformer.config.num_classes
        network = model.reusing_kernels()

        def denoiser(x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            return network(x_t.to(model.dtype), t, y if known else None).float()

        settings: Any = guidance | {"interval": tuple(guidance.get("interval", (0.0, 1.0)))}
        return guided(
            denoiser, Guidance(**settings), known, self.scheduler.config.num_train_timesteps
        )

    def _set_timesteps(self, steps: int) -> int | None:
        """Set our samplers' grid where the scheduler takes one, and its own where it does not.

        Returns the step that DPM-Solver++ has to take at first order, being too wide to extrapolate
        over: the last but one of our grid.
        """
        scheduler, config = self.scheduler, self.scheduler.config
        whole = config.num_train_timesteps
        if not 1 <= steps <= whole:
            raise ValueError(f"num_inference_steps must lie in 1 to {whole}, not {steps}")
        evenly = config.get("timestep_spacing") == "linspace"
        evenly = evenly and not any(config.get(name) for name in OWN_GRIDS)
        solver = isinstance(scheduler, DPMSolverMultistepScheduler)
        if not evenly or not (solver or isinstance(scheduler, DDPMScheduler)):
            scheduler.set_timesteps(steps)
            return None
        scheduler.set_timesteps(timesteps=kept_timesteps(str(steps), whole)[::-1])
        return steps - 2 if solver else None

    def _learned_variance(self) -> bool:
        """Whether the scheduler wants the second half of the prediction, the variance."""
        named = self.scheduler.config.get("variance_type") in ("learned", "learned_range")
        if named and isinstance(self.scheduler, DPMSolverMultistepScheduler):
            # of whatever it is given, it would keep the first three channels
            raise ValueError(
                "DPMSolverMultistepScheduler has no use for a learned variance: make it "
                "from_config(..., variance_type=None)"
            )
        return named and isinstance(self.scheduler, DDPMScheduler)

    def _step_options(self, generator: Any, eta: int | float) -> dict[str, Any]:
        """What the scheduler's step can be told besides the tensors."""
        known = inspect.signature(self.scheduler.step).parameters
        if eta and "eta" not in known:
            raise ValueError(f"eta {eta} is for DDIMScheduler, not {type(self.scheduler).__name__}")
        # a clipped image implies another noise; our ddim follows it
        clipped = self.scheduler.config.get("clip_sample", False)
        options = {"generator": generator, "eta": eta, "use_clipped_model_output": clipped}
        return {name: value for name, value in options.items() if name in known}

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width of the latents."""
        size = self.transformer.config.input_size
        factor = 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)
        sides = [size, size] if isinstance(size, int) else list(size)
        for i, asked in enumerate((height, width)):
            if asked is not None:
                if asked % factor:
                    raise ValueError(f"{asked} pixels have no latent: give a multiple of {factor}")
                sides[i] = asked // factor
        return sides[0], sides[1]

    def _decoded(self, latents: Tensor, output_type: str) -> Any:
        if self.vae is not None:
            scaled = latents / self.vae.config.scaling_factor
            latents = self.vae.decode(scaled.to(self.vae.dtype)).sample.float()
        images = (latents / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return images
        array = images.permute(0, 2, 3, 1).cpu().numpy()
        return array if output_type == "np" else self.numpy_to_pil(array)
