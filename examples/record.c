/* Records into Cloud Storage from C, listening to what gcssink says.
 *
 * usage: record BUCKET [SOURCE]     SOURCE is a launch line up to its muxer
 *
 * cc -o record examples/record.c $(pkg-config --cflags --libs gstreamer-1.0)
 *
 * Needs the plugin where GStreamer finds it (GST_PLUGIN_PATH). Ctrl-C ends by EOS, so that the last chunk is complete. */
#include <signal.h>

#include <glib-unix.h>
#include <gst/gst.h>

/* A test picture where no source is given. */
#define TEST_SOURCE \
  "videotestsrc is-live=true ! video/x-raw,framerate=15/1 ! x264enc tune=zerolatency key-int-max=15 " \
  "! h264parse ! flvmux streamable=true"

typedef struct {
  GstElement *pipeline;
  GMainLoop *loop;
  int faults;
} Recording;

/* What gcssink says of the recording. */
static void
print_message (const GstStructure *message)
{
  const char *reason = gst_structure_get_string (message, "reason");
  guint64 number = 0;

  if (gst_structure_has_name (message, "gcssink-chunk-uploaded")) {
    /* Only now is the chunk in the bucket for certain. */
    gst_structure_get_uint64 (message, "size", &number);
    g_print ("gcssink-chunk-uploaded %s %" G_GUINT64_FORMAT " bytes\n",
        gst_structure_get_string (message, "object"), number);
  } else if (gst_structure_has_name (message, "gcssink-gap")) {
    gst_structure_get_uint64 (message, "duration", &number);
    g_print ("gcssink-gap %s %" G_GUINT64_FORMAT " ms: %s\n",
        gst_structure_get_string (message, "start-time"), number / GST_MSECOND, reason);
  } else if (gst_structure_has_name (message, "gcssink-status")) {
    gst_structure_get_uint64 (message, "pending-chunks", &number);
    g_print ("gcssink-status %s, %" G_GUINT64_FORMAT " chunks wait %s\n",
        gst_structure_get_string (message, "status"), number, reason ? reason : "");
  }
}

static gboolean
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  Recording *recording = data;
  GError *error = NULL;

  (void) bus;
  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_ELEMENT:
      print_message (gst_message_get_structure (message));
      break;
    case GST_MESSAGE_WARNING:
      gst_message_parse_warning (message, &error, NULL);
      g_print ("warning: %s\n", error->message);
      break;
    case GST_MESSAGE_ERROR:
      gst_message_parse_error (message, &error, NULL);
      g_printerr ("%s\n", error->message);
      recording->faults++;
      g_main_loop_quit (recording->loop);
      break;
    case GST_MESSAGE_EOS:
      g_main_loop_quit (recording->loop);
      break;
    default:
      break;
  }
  g_clear_error (&error);
  return G_SOURCE_CONTINUE;
}

/* Called from a thread of GStreamer's. */
static void
on_status (GstElement *sink, GParamSpec *spec, gpointer data)
{
  int status = 0;
  GEnumClass *names = g_type_class_ref (G_PARAM_SPEC_VALUE_TYPE (spec));
  GEnumValue *value;

  (void) data;
  g_object_get (sink, "status", &status, NULL);
  value = g_enum_get_value (names, status);
  g_print ("status is %s\n", value ? value->value_nick : "unknown");
  g_type_class_unref (names);
}

/* EOS runs through the muxer to the sink, which returns it once everything is stored, or after drain-timeout. */
static gboolean
on_interrupt (gpointer data)
{
  g_print ("interrupted: sending EOS\n");
  gst_element_send_event (((Recording *) data)->pipeline, gst_event_new_eos ());
  return G_SOURCE_CONTINUE;
}

int
main (int argc, char **argv)
{
  Recording recording = { NULL, NULL, 0 };
  GstElement *source, *sink;
  GstBus *bus;
  GError *error = NULL;

  gst_init (&argc, &argv);
  if (argc < 2 || argc > 3) {
    g_printerr ("usage: %s BUCKET [SOURCE]\n", argv[0]);
    return 2;
  }
  source = gst_parse_bin_from_description (argc == 3 ? argv[2] : TEST_SOURCE, TRUE, &error);
  sink = gst_element_factory_make ("gcssink", NULL);
  if (error || !source || !sink) {
    g_printerr ("%s\n", error ? error->message : "no element gcssink: install the plugin, or set GST_PLUGIN_PATH");
    return 1;
  }
  g_object_set (sink, "bucket", argv[1], "device-id", "example-c", "max-size-time", (guint64) 2 * GST_SECOND, NULL);
  g_signal_connect (sink, "notify::status", G_CALLBACK (on_status), NULL);
  recording.pipeline = gst_pipeline_new (NULL);
  gst_bin_add_many (GST_BIN (recording.pipeline), source, sink, NULL);
  if (!gst_element_link (source, sink)) {
    g_printerr ("gcssink does not take what the source gives: end it with a muxer\n");
    return 1;
  }

  recording.loop = g_main_loop_new (NULL, FALSE);
  bus = gst_element_get_bus (recording.pipeline);
  gst_bus_add_watch (bus, on_message, &recording);
  g_unix_signal_add (SIGINT, on_interrupt, &recording);

  gst_element_set_state (recording.pipeline, GST_STATE_PLAYING);
  g_main_loop_run (recording.loop);
  gst_element_set_state (recording.pipeline, GST_STATE_NULL);

  gst_bus_remove_watch (bus);
  gst_object_unref (bus);
  gst_object_unref (recording.pipeline);
  g_main_loop_unref (recording.loop);
  return recording.faults;
}
