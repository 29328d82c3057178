#include "libshared/disk/images.h"

#include <string.h>

static void image_lay(struct qcow2 *image, int fd, struct qcow2 *under)
{
    int64_t bytes = qcow2_file_size(fd);
    const struct qcow2_backing backing = {
        .image = under,
        .fd = fd,
        .size = under ? qcow2_size(under) : (uint64_t)(bytes > 0 ? bytes : 0),
    };

    qcow2_set_backing(image, &backing);
}

int disk_images_open(const struct disk_chain *chain, bool read_only,
                     struct qcow2 *images[DISK_LAYERS_MAX], struct error *err)
{
    memset(images, 0, DISK_LAYERS_MAX * sizeof(images[0]));
    for (unsigned i = chain->count; i-- > 0;) {
        const struct disk_layer *layer = &chain->layers[i];
        if (!layer->qcow2) {
            continue;
        }
        images[i] = qcow2_open(layer->fd, layer->path, i != 0 || read_only, err);
        if (!images[i]) {
            disk_images_close(images);
            return -(int)err->code;
        }
        if (i + 1 < chain->count) {
            image_lay(images[i], chain->layers[i + 1].fd, images[i + 1]);
        }
    }
    return 0;
}

void disk_images_close(struct qcow2 *images[DISK_LAYERS_MAX])
{
    for (unsigned i = 0; i < DISK_LAYERS_MAX; i++) {
        qcow2_close(images[i]);
        images[i] = NULL;
    }
}
